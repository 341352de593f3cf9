"""Other formats and libraries, each imported when it is used.

`scikit_learn` is itself imported only then: its class is made from one of that library.
"""

from minidl.interop.dlpack import from_dlpack
from minidl.interop.pytorch import weights_from_pytorch, weights_to_pytorch

__all__ = ["from_dlpack", "weights_from_pytorch", "weights_to_pytorch"]
