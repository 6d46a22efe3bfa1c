"""Decode every tile once: hash its pixels and measure it for the audit."""

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from pipeline.errors import BadInput, BadTile
from pipeline.runtime.console import list_names
from pipeline.runtime.progress import progress
from pipeline.storage import atomic
from pipeline.storage.embeddings.writer import check_classes
from pipeline.tiles.audit.perceptual_hash import ORIENTATIONS, perceptual_hashes
from pipeline.tiles.datasets.sources import TileSet
from pipeline.tiles.decoding import pixel_hash, read_tile
from pipeline.tiles.manifest import tile_ids

SIDE = 128
"""Side in px at which tiles are measured, so that sharpness and contrast do not depend on the tile's size."""

THUMBNAIL = 16
"""Side of the thumbnails in px."""

WHITE, BLACK = 220, 30
"""A pixel is background if all channels are above WHITE (empty slide) or below BLACK (a scanner's edge)."""

QUALITY = ("brightness", "contrast", "saturation", "red", "green", "blue", "background", "sharpness")
"""Columns of `Measurements.quality`."""


@dataclasses.dataclass(frozen=True)
class Measurements:
    """Measurements of each tile for the audit, in the manifest's order; about 0.4 kB a tile."""

    hashes: np.ndarray
    """Perceptual hashes in eight orientations, (N, 8) uint64; 0 where the tile is unreadable."""

    thumbnails: np.ndarray
    """Tiles in grey, (N, 16, 16) uint8; 0 where the tile is unreadable."""

    quality: pd.DataFrame
    """One row per tile, columns `QUALITY`, NaN where the tile is unreadable. brightness, saturation, red, green, blue:
    means, 0..1. contrast: standard deviation of the grey values, 0..1. background: share of the pixels. sharpness:
    variance of the Laplacian of the grey values, 0..255. All of the tile at `SIDE` x `SIDE` px."""

    notes: list[str]
    """How each tile was read (`decoding.Decoded.note`), mostly ""."""

    def take(self, rows: np.ndarray) -> "Measurements":
        """Return the measurements of some rows, in their order."""
        quality = self.quality.iloc[rows].reset_index(drop=True)
        return Measurements(self.hashes[rows], self.thumbnails[rows], quality, [self.notes[row] for row in rows])


def measure(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray, tuple[float, ...]]:
    """Return a tile's perceptual hashes, thumbnail, and `QUALITY`; see `Measurements`.

    Args:
        pixels: (height, width, 3) uint8 RGB.
    """
    image = Image.fromarray(pixels)
    if image.size != (SIDE, SIDE):
        image = image.resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    red, green, blue = (np.asarray(channel) for channel in image.split())
    high, low = np.maximum(np.maximum(red, green), blue), np.minimum(np.minimum(red, green), blue)
    small = image.convert("L")
    grey = np.asarray(small, dtype=np.float32)
    laplacian = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:] - 4 * grey[1:-1, 1:-1]
    values = (
        float(grey.mean()) / 255,
        float(grey.std()) / 255,
        float(((high - low) / np.maximum(high, 1).astype(np.float32)).mean()),
        float(red.mean()) / 255,
        float(green.mean()) / 255,
        float(blue.mean()) / 255,
        float(((low > WHITE) | (high < BLACK)).mean()),
        float(laplacian.var()),
    )
    hashes = perceptual_hashes(np.asarray(small.reduce(SIDE // 32)))
    return hashes, np.asarray(small.reduce(SIDE // THUMBNAIL)), values


def survey(
    root: Path, paths: list[str], *, workers: int, store: Path | None = None
) -> tuple[pd.DataFrame, Measurements]:
    """Decode every tile once.

    Args:
        root: folder that the paths are relative to.
        paths: paths of the tiles, (N,).
        workers: threads, at least 1.
        store: folder that the decoded tiles are written to as PNG files, under the same paths.

    Returns:
        A table with the columns sha256, width, height and problem ("" if the tile can be read; else the others are
        "", 0 and 0), and the measurements, both in the order of `paths`.
    """
    hashes = np.zeros((len(paths), len(ORIENTATIONS)), dtype=np.uint64)
    thumbnails = np.zeros((len(paths), THUMBNAIL, THUMBNAIL), dtype=np.uint8)
    quality = np.full((len(paths), len(QUALITY)), np.nan, dtype=np.float32)

    notes = [""] * len(paths)

    def look(row: int) -> tuple[str, int, int, str]:
        path = root / paths[row]
        try:
            decoded = read_tile(path)
        except BadTile as error:
            return "", 0, 0, str(error).removeprefix(f"{path}: ")
        pixels, notes[row] = decoded.pixels, decoded.note
        hashes[row], thumbnails[row], quality[row] = measure(pixels)
        height, width, _ = pixels.shape
        if store is not None:
            with atomic.atomic(store / paths[row]) as temporary:
                Image.fromarray(pixels).save(temporary, format="PNG")
        return pixel_hash(pixels).hex(), width, height, ""

    rows = []
    with ThreadPoolExecutor(workers) as pool, progress(len(paths), unit="tile", label="prepare") as bar:
        for row in pool.map(look, range(len(paths))):
            rows.append(row)
            bar.update()
    table = pd.DataFrame(rows, columns=["sha256", "width", "height", "problem"])
    return table, Measurements(hashes, thumbnails, pd.DataFrame(quality, columns=list(QUALITY)), notes)


def survey_tiles(
    tiles: TileSet, *, workers: int, max_bad: float, store: Path | None = None
) -> tuple[pd.DataFrame, Measurements]:
    """Return the manifest's table and the audit's measurements; the split is only that which the data gives.

    Args:
        tiles: the data set.
        workers: threads, at least 1.
        max_bad: largest share of tiles that cannot be read.
        store: as for `survey`.

    Raises:
        BadInput: too many unreadable tiles, fewer than two classes, a class with fewer than two tiles, or class names
            that cannot be stored.
    """
    table = tiles.table.copy()
    table.insert(0, "tile_id", tile_ids(list(table["path"])))
    seen, measurements = survey(tiles.root, list(table["path"]), workers=workers, store=store)
    table[list(seen.columns)] = seen
    table.loc[table["problem"] != "", "split"] = ""
    bad = table[table["problem"] != ""]
    if len(bad) > max_bad * len(table):
        first = bad.iloc[0]
        raise BadInput(
            f"{tiles.root}: {len(bad)} of {len(table)} tiles cannot be read, more than --max-bad {max_bad:g}: "
            f"{first['path']}: {first['problem']}"
            + (f"; also {list_names(list(bad['path'][1:]))}" if len(bad) > 1 else "")
        )
    # readable tiles of every class that was named: a class that lost all of its tiles is an error
    counts = (table["problem"] == "").groupby(table["label"]).sum()
    if len(counts) < 2:
        raise BadInput(f"{tiles.root}: only one class ('{counts.index[0]}'): a comparison needs at least two")
    check_classes(list(counts.index))
    if (counts < 2).any():
        label = counts.index[counts < 2][0]
        reasons = sorted(set(bad.loc[bad["label"] == label, "problem"]))
        why = f" ({len(bad[bad['label'] == label])} cannot be read: {reasons[0]})" if reasons else ""
        raise BadInput(
            f"{tiles.root}: class '{label}' has {counts[label]} readable tile(s){why}, which cannot be both trained on "
            "and tested: add tiles of it or leave the class out"
        )
    return table, measurements
