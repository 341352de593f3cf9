"""Pickles as Python 2 wrote them, with its strings where Python 3 has bytes."""

import io
import pickle
import struct
from typing import ClassVar


class Python2Pickler(pickle._Pickler):
    """Writes bytes as what they were in Python 2, SHORT_BINSTRING and BINSTRING."""

    dispatch: ClassVar = dict(pickle._Pickler.dispatch)

    def save_bytes(self, value):
        if len(value) < 256:
            self.write(b"U" + struct.pack("<B", len(value)) + value)
        else:
            self.write(b"T" + struct.pack("<i", len(value)) + value)
        self.memoize(value)

    dispatch[bytes] = save_bytes


def dumps(value, protocol=2):
    """A pickle of Python 2, which knew NumPy's core by its old name."""
    file = io.BytesIO()
    Python2Pickler(file, protocol).dump(value)
    return file.getvalue().replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")
