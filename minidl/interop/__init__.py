"""Other formats and libraries, each imported when it is used."""

from minidl.interop.keras import weights_from_keras, weights_to_keras
from minidl.interop.pytorch import weights_from_pytorch, weights_to_pytorch

__all__ = [
    "weights_from_keras",
    "weights_from_pytorch",
    "weights_to_keras",
    "weights_to_pytorch",
]
