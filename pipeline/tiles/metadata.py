"""Remove metadata from an image file in memory, so that damaged metadata does not cost whole pixels."""

import struct
import zlib

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"

PNG_KEPT = (b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"acTL", b"eXIf")
"""Chunks of a PNG that decide its pixels, its frames or its orientation."""

_STRUCTURE = (
    "256 257 258 259 262 266 273 277 278 279 284 292 293 317 320 322 323 324 325 332 338 339 347 529 530 531 532"
)
TIFF_KEPT = frozenset(map(int, f"{_STRUCTURE} 274".split()))
"""Tags of a TIFF that decide its pixels or its orientation: sides, bits, compression, colours, strips, tiles; 274."""


def without_metadata(data: bytes) -> bytes | None:
    """Return an image file that holds the same pixels without metadata and further pages.

    Args:
        data: bytes of a PNG, TIFF or BigTIFF file.

    Returns:
        The new file; None for another format, or where the file's own structure is damaged.
    """
    try:
        if data.startswith(PNG_SIGNATURE):
            return _png(data)
        if data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
            return _tiff(data)
    except (struct.error, IndexError):
        pass
    return None


def _png(data: bytes) -> bytes:
    """Return a PNG without its optional chunks; an eXIf chunk stays where its checksum is right."""
    kept, at = [PNG_SIGNATURE], len(PNG_SIGNATURE)
    while at < len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        chunk = data[at:end]
        is_whole = zlib.crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:])
        if kind in PNG_KEPT and (is_whole or kind != b"eXIf"):
            kept.append(chunk)
        if kind == b"IEND":
            break
        at = end
    return b"".join(kept)


def _tiff(data: bytes) -> bytes:
    """Return a TIFF whose only directory holds `TIFF_KEPT`; it is appended, so that all offsets stay right."""
    order = "<" if data[:2] == b"II" else ">"
    is_big = b"+" in data[2:4]
    count, offset, entry_bytes, pointer_at = ("Q", "Q", 20, 8) if is_big else ("H", "I", 12, 4)
    (start,) = struct.unpack_from(order + offset, data, pointer_at)
    (n,) = struct.unpack_from(order + count, data, start)
    first = start + struct.calcsize(order + count)
    entries = [data[at : at + entry_bytes] for at in range(first, min(first + n * entry_bytes, len(data)), entry_bytes)]
    kept = [entry for entry in entries if struct.unpack_from(order + "H", entry)[0] in TIFF_KEPT]
    directory = struct.pack(order + count, len(kept)) + b"".join(kept) + struct.pack(order + offset, 0)
    padding = bytes(len(data) % 2)
    pointer = struct.pack(order + offset, len(data) + len(padding))
    return data[:pointer_at] + pointer + data[pointer_at + len(pointer) :] + padding + directory
