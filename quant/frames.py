"""Files packed by zstandard, all their frames: one that is cut off is an error.

zstandard's own reader ends without a word where the bytes end, or the first frame.
"""

import io
from collections.abc import Iterator
from typing import Any, BinaryIO, Final

import zstandard

PACKED_BYTES: Final = 1 << 16


class Frames(io.RawIOBase):
    """What the frames of a packed file hold, one after another.

    Raises: EOFError, when it is read on to there, for a file that ends within a frame.
    """

    def __init__(self, packed: BinaryIO) -> None:
        super().__init__()
        self._unpacked = _unpacked(packed)
        self._left = memoryview(b"")

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any) -> int:
        """As of any raw file; 0 is the end."""
        while not self._left:
            content = next(self._unpacked, None)
            if content is None:
                return 0
            self._left = memoryview(content)
        length = min(len(buffer), len(self._left))
        buffer[:length], self._left = self._left[:length], self._left[length:]
        return length


def _unpacked(packed: BinaryIO) -> Iterator[bytes]:
    frame = None
    while chunk := packed.read(PACKED_BYTES):
        while chunk:
            if frame is None or frame.eof:
                frame = zstandard.ZstdDecompressor().decompressobj()
            yield frame.decompress(chunk)
            chunk = frame.unused_data
    if frame is not None and not frame.eof:
        raise EOFError("the file is cut off")
