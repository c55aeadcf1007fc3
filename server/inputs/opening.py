"""Opens files whatever they are packed in: gzip, zstd, UTF-16, a byte order mark; and standard input."""

import codecs
import gzip
import io
import math
import shutil
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, cast

from gram.server.inputs.errors import InputError

_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
"""What packed files begin with."""
_CHUNK_BYTES = 1 << 17


class _Bounded:
    """Writes to a file up to a number of bytes. Raises InputError at more."""

    def __init__(self, file: IO[bytes], max_bytes: float) -> None:
        self._file, self._max_bytes, self._written = file, max_bytes, 0

    def write(self, data: bytes) -> int:
        self._written += len(data)
        if self._written > self._max_bytes:
            raise _too_large(self._max_bytes)
        return self._file.write(data)


def _too_large(max_bytes: float) -> InputError:
    return InputError(f"unpacked, the file has more than {max_bytes:.0f} bytes; send it in parts")


def check_archive(path: Path, max_bytes: float) -> None:
    """Refuse a .npz whose arrays are larger than that. Raises InputError."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if sum(member.file_size for member in archive.infolist()) > max_bytes:
                raise _too_large(max_bytes)


def unpack(path: Path, max_bytes: float = math.inf) -> "tempfile._TemporaryFileWrapper[bytes] | None":
    """A temporary copy of what is packed in a file, or comes from standard input ("-"); None if the file is not packed.

    Raises InputError if the file can't be read to its end, or has more than `max_bytes`.
    """
    standard_input = path == Path("-")
    try:
        with io.BufferedReader(cast("io.RawIOBase", sys.stdin.buffer)) if standard_input else path.open("rb") as source:
            start = source.peek(4)
            if not (standard_input or start.startswith((_GZIP, _ZSTD))):
                return None
            copy = tempfile.NamedTemporaryFile()  # noqa: SIM115  # it goes with the object
            bounded = _Bounded(cast("IO[bytes]", copy), max_bytes)
            if start.startswith(_ZSTD):
                _unpack_zstd(source, bounded, path)
            else:
                packed = start.startswith(_GZIP)
                shutil.copyfileobj(gzip.GzipFile(fileobj=source) if packed else source, bounded)
            copy.flush()
            return copy
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: {getattr(error, 'strerror', None) or error}") from error


def text_lines(path: Path) -> Iterator[str]:
    """The lines of a text file that is not packed, as they are asked for; each line break becomes a newline."""
    with path.open("rb") as file:
        start = file.peek(2)
        encoding = "utf-16" if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
        yield from io.TextIOWrapper(file, encoding, errors="replace")


def _unpack_zstd(source: IO[bytes], copy: Any, path: Path) -> None:
    """Unpack all frames. zstandard's own `open` takes a file that was cut off for a whole one."""
    try:
        import zstandard
    except ModuleNotFoundError as error:
        raise InputError(f"{path} is compressed with zstd; pip install zstandard, or decompress it first: zstd -d") from error
    frame = None
    try:
        while data := source.read(_CHUNK_BYTES):
            while data:
                frame = frame or zstandard.ZstdDecompressor().decompressobj()
                copy.write(frame.decompress(data))
                data, frame = (frame.unused_data, None) if frame.eof else (b"", frame)
    except zstandard.ZstdError as error:
        raise OSError(str(error)) from error
    if frame:
        raise EOFError("the file ends too early")
