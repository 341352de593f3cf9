"""A disk that is full before a file has been written."""

from contextlib import contextmanager

import pytest


@contextmanager
def full_disk(size=2000):
    """No file can grow beyond this many bytes; the error is EFBIG, not ENOSPC, but as real."""
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
