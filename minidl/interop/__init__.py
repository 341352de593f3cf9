"""Other formats and libraries, each imported when it is used.

`scikit_learn` is itself imported only then: its class is made from one of that library.
"""

from minidl.interop.dlpack import from_dlpack
from minidl.interop.keras import weights_from_keras, weights_to_keras
from minidl.interop.onnx import export_onnx, load_onnx
from minidl.interop.pytorch import weights_from_pytorch, weights_to_pytorch

__all__ = [
    "export_onnx",
    "from_dlpack",
    "load_onnx",
    "weights_from_keras",
    "weights_from_pytorch",
    "weights_to_keras",
    "weights_to_pytorch",
]
