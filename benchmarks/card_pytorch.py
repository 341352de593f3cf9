"""PyTorch on the GPU that is measured on, beside `card.py`."""

from __future__ import annotations

import sys
from typing import Any

from options import PROGRAM, PYTORCH_MISSING

try:
    import torch
except ModuleNotFoundError:
    sys.exit(PYTORCH_MISSING)
from card import Library

if not torch.cuda.is_available():
    sys.exit(
        f"{PROGRAM} compares with PyTorch on the GPU, but PyTorch {torch.__version__} finds none"
    )

# Products are of float32 as it is, as minidl's, and not rounded to fewer bits before.
torch.backends.cudnn.allow_tf32 = False
torch.backends.cuda.matmul.allow_tf32 = False

VERSION = torch.__version__


class Torch(Library):
    """PyTorch."""

    def event(self) -> Any:
        """See `Library`."""
        return torch.cuda.Event(enable_timing=True)

    def milliseconds_between(self, start: Any, end: Any) -> float:
        """See `Library`."""
        return float(start.elapsed_time(end))

    def give_back_memory(self) -> None:
        """See `Library`."""
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()

    def most_memory(self) -> int:
        """See `Library`."""
        return int(torch.cuda.max_memory_reserved())
