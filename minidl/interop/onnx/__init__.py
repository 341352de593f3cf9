"""Models to and from ONNX files, which many other programs run and write."""

from minidl.interop.onnx.export import export_onnx
from minidl.interop.onnx.load import load_onnx

__all__ = ["export_onnx", "load_onnx"]
