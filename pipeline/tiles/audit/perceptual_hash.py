"""Find tiles that look alike although their bytes differ: re-encoded, resized, brightened, turned or mirrored copies.

A perceptual hash proposes pairs, thumbnails decide. The hash is pHash (Zauner, Implementation and benchmarking of
perceptual image hash functions, 2010): the signs, about their median, of 8 x 8 low frequencies of the cosine
transform. A turned or mirrored tile has the same frequencies, transposed and with other signs, so one transform gives
the hashes of all eight orientations.
"""

from collections.abc import Iterator

import numpy as np
from scipy.fft import dct

FREQUENCIES = 8
"""Rows and columns of the cosine transform that make the hash: 64 bits. As in pHash the zeroth are left out: they
hold the brightness and the plain gradients that many tiles share."""

ORIENTATIONS = tuple((turned, rows, columns) for turned in (False, True) for rows in (1, -1) for columns in (1, -1))
"""The eight symmetries of the square: transposed first or not, then the order of rows and of columns."""

PART_BITS = 16
"""Bits of the parts of a hash by which candidates are looked up (multi-index hashing, Norouzi et al. 2012)."""

MAX_DISTANCE = 7
"""Most bits in which two hashes differ. Then one of the four parts differs in one bit at most: 17 look-ups find it."""

MIN_CORRELATION = 0.96
"""Least correlation of two thumbnails of near-duplicates. Measured on 5000 colorectal tiles of 224 px: copies that
were turned, saved as JPEG of quality 40, halved, or brightened had 0.997 and more, and no other two
tiles had hashes as close; on tiles of 50 px such copies had 0.94 and more."""

MAX_DIFFERENCE = 8.0
"""Most mean absolute difference of two thumbnails, in grey levels of 255, after their means were made equal."""

MAX_SHIFT = 20.0
"""Most difference of the means of two thumbnails, in grey levels of 255: brightness +3 % is 7 at most."""

MIN_CONTRAST = 4.0
"""Least standard deviation of a thumbnail, in grey levels of 255: blank tiles all look alike and are not compared."""

CHUNK = 1 << 21
"""Candidate pairs that are held at once."""

_SIGNS = (-1.0) ** np.arange(1, FREQUENCIES + 1)
_TURNED = np.array([int(turned) for turned, _, _ in ORIENTATIONS])
_FLIPS = np.stack(
    [
        np.outer(_SIGNS if rows < 0 else np.ones(FREQUENCIES), _SIGNS if columns < 0 else np.ones(FREQUENCIES))
        for _, rows, columns in ORIENTATIONS
    ]
)
_BASIS = dct(np.eye(32), axis=0, norm="ortho")[1 : FREQUENCIES + 1]


def orient(thumbnail: np.ndarray, orientation: int) -> np.ndarray:
    """Return a thumbnail, (..., S, S), in one of the eight `ORIENTATIONS`."""
    turned, rows, columns = ORIENTATIONS[orientation]
    return (np.swapaxes(thumbnail, -1, -2) if turned else thumbnail)[..., ::rows, ::columns]


def perceptual_hashes(grey: np.ndarray) -> np.ndarray:
    """Return the 64-bit perceptual hash of a tile in each of the eight orientations, (8,) uint64.

    Args:
        grey: the tile at 32 x 32 px.
    """
    low = _BASIS @ grey.astype(np.float64) @ _BASIS.T
    # reversing the rows changes the sign of each odd vertical frequency; transposing transposes
    all_eight = (np.stack([low, low.T])[_TURNED] * _FLIPS).reshape(len(ORIENTATIONS), -1)
    bits = all_eight > np.median(all_eight, axis=1, keepdims=True)
    return np.packbits(bits, axis=1).view(np.uint64).ravel()


def candidates(hashes: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield pairs of tiles, i < j, whose hashes differ in `MAX_DISTANCE` bits at most, some of them repeatedly.

    Args:
        hashes: hashes of the eight orientations of each tile, (N, 8) uint64.

    Yields:
        Rows i and j, (M,) int64 each, such that tile i looks like tile j in some orientation.
    """
    masks = np.array([0, *(1 << bit for bit in range(PART_BITS))], dtype=np.uint16)
    parts = np.ascontiguousarray(hashes).view(np.uint16).reshape(*hashes.shape, -1)
    upright = hashes[:, 0]
    for part in range(parts.shape[2]):
        order = np.argsort(parts[:, 0, part], kind="stable")
        starts = np.searchsorted(parts[order, 0, part], np.arange((1 << PART_BITS) + 1))
        for orientation in range(hashes.shape[1]):
            for mask in masks:
                keys = (parts[:, orientation, part] ^ mask).astype(np.int64)
                yield from _lookup(upright, hashes[:, orientation], keys, order=order, starts=starts)


def _lookup(
    upright: np.ndarray, turned: np.ndarray, keys: np.ndarray, *, order: np.ndarray, starts: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the pairs (i, j), i < j, where i is in the bucket of j's key and the hashes are close."""
    counts = starts[keys + 1] - starts[keys]
    ends = np.cumsum(counts)
    first = 0
    while first < len(keys):
        before = ends[first - 1] if first else 0
        last = max(first + 1, int(np.searchsorted(ends, before + CHUNK, side="right")))
        n = counts[first:last]
        j = np.repeat(np.arange(first, last), n)
        within = np.arange(n.sum()) - np.repeat(np.cumsum(n) - n, n)
        i = order[np.repeat(starts[keys[first:last]], n) + within]
        close = (i < j) & (np.bitwise_count(upright[i] ^ turned[j]) <= MAX_DISTANCE)
        yield i[close], j[close]
        first = last


def near_duplicates(hashes: np.ndarray, thumbnails: np.ndarray) -> np.ndarray:
    """Return pairs of tiles that show the same pixels in some orientation, apart from small changes.

    For many copies of a tile, not every pair is returned, but enough pairs to connect them all.

    Args:
        hashes: hashes of the eight orientations of each tile, (N, 8) uint64.
        thumbnails: each tile in grey, (N, S, S) uint8.

    Returns:
        Rows i < j of each pair, (M, 2) int64, sorted. Tiles with less contrast than `MIN_CONTRAST` are in none.
    """
    rows = np.flatnonzero(thumbnails.std(axis=(1, 2), dtype=np.float32) >= MIN_CONTRAST)
    if not len(rows):
        return np.zeros((0, 2), dtype=np.int64)
    # copies with the very hash of an earlier tile are joined to it and looked up no more: a thousand copies of one
    # tile would be half a million pairs
    _, first, bucket = np.unique(hashes[rows].min(axis=1), return_index=True, return_inverse=True)
    leader = rows[first[bucket]]
    later = leader != rows
    with_leader = np.stack([leader[later], rows[later]], axis=1)
    with_leader = with_leader[_agree(with_leader, thumbnails)]
    rest = np.setdiff1d(rows, with_leader[:, 1])
    found = np.concatenate([np.stack(pair, axis=1) for pair in candidates(hashes[rest])])
    pairs = rest[np.unique(found, axis=0)]
    return np.unique(np.concatenate([with_leader, pairs[_agree(pairs, thumbnails)]]), axis=0)


def _agree(pairs: np.ndarray, thumbnails: np.ndarray) -> np.ndarray:
    """Return `look_same` of pairs of rows, (M,) bool, a part at a time."""
    chunks = np.array_split(pairs, len(pairs) // 10_000 + 1)
    return np.concatenate([look_same(thumbnails[part[:, 0]], thumbnails[part[:, 1]]) for part in chunks])


def look_same(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return for each pair of thumbnails, (M, S, S) uint8, whether they agree in some orientation, (M,) bool."""
    left, left_mean = _centred(a)
    same = np.zeros(len(a), dtype=bool)
    for orientation in range(len(ORIENTATIONS)):
        right, right_mean = _centred(orient(b, orientation))
        norms = np.sqrt((left**2).sum(axis=1) * (right**2).sum(axis=1))
        correlation = (left * right).sum(axis=1) / np.maximum(norms, 1e-6)
        difference = np.abs(left - right).mean(axis=1)
        shift = np.abs(left_mean - right_mean)
        same |= (correlation >= MIN_CORRELATION) & (difference <= MAX_DIFFERENCE) & (shift <= MAX_SHIFT)
    return same


def _centred(thumbnails: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return thumbnails less their means, (M, S * S) float32, and the means, (M,)."""
    values = thumbnails.reshape(len(thumbnails), thumbnails.shape[1] * thumbnails.shape[2]).astype(np.float32)
    means = values.mean(axis=1)
    return values - means[:, None], means
