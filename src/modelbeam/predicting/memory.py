"""A model that runs out of memory over many records at once gets fewer, then and afterwards."""

from __future__ import annotations

import gc
import re
import sys
from typing import Any

_SAYS_SO = re.compile(
    r"out of memory|bad_alloc|[Ff]ailed to allocate|[Uu]nable to allocate|can't allocate memory"
    r"|cannot allocate memory|Available memory of|RESOURCE_EXHAUSTED",
    re.IGNORECASE,
)
"""What torch, ONNX Runtime, NumPy, TensorFlow and C++ say."""


class TooMuchMemoryError(Exception):
    """A call is not made, since one that was smaller has run out of memory."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a call failed for want of memory, so that fewer records may do."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, Exception) and bool(_SAYS_SO.search(str(error)))


def free_memory() -> None:
    """Give back what a failed call has left, on a GPU too."""
    gc.collect()
    torch: Any = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
