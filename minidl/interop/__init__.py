"""Other formats and libraries, each imported when it is used."""

from minidl.interop.onnx import export_onnx, load_onnx
from minidl.interop.pytorch import weights_from_pytorch, weights_to_pytorch

__all__ = ["export_onnx", "load_onnx", "weights_from_pytorch", "weights_to_pytorch"]
