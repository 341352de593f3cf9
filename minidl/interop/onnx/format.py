"""What reading and writing ONNX files have in common.

The format is described in https://github.com/onnx/onnx/blob/main/docs/IR.md, its operators in
https://github.com/onnx/onnx/blob/main/docs/Operators.md.
"""

from __future__ import annotations

import importlib

# Set of operators and version of the file format that are written: those of ONNX 1.12 from 2022.
# Everything that has come out since reads them, onnxruntime from 1.12 on; and the operators that
# are written have changed since in nothing but the types and options that they allow.
OPSET = 17
IR_VERSION = 8

# Sets of operators that are read. In 13, Softmax became what it is now. Up to 28, the newest there
# was to look at, no operator that is read computes anything else with the attributes allowed here.
OPSETS_READ = range(13, 29)

# Where the metadata of a file holds the names of classes, a list in JSON.
CLASS_NAMES = "minidl.class_names"

# Protocol buffers, in which ONNX files are written, cannot be longer.
MOST_BYTES = 2**31 - 1


def require_onnx() -> None:
    """Raise ImportError, saying what to install, if there is no library for ONNX files."""
    try:
        importlib.import_module("onnx")
    except ModuleNotFoundError as error:
        raise ImportError(
            "ONNX files are read and written with the package onnx; install it with "
            "pip install onnx"
        ) from error
