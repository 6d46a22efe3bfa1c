"""Put thumbnails of tiles into one JPEG sheet."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from pipeline.comparison.report_figures import tile_reader
from pipeline.evaluation.validate import IntArray
from pipeline.markup.inline_data import encode, jpeg
from pipeline.runtime.device import n_cores
from pipeline.tiles.decoding import resize
from pipeline.tiles.manifest import Manifest

SHEET_COLUMNS = 64


def thumbnail_sheet(manifest: Manifest, names: Sequence[str], *, px: int) -> dict[str, Any]:
    """Return a sheet with a thumbnail of each tile; a tile that cannot be read any more has place -1.

    Args:
        manifest: names the files of the tiles.
        names: of T tiles.
        px: side of a thumbnail.
    """
    table, read = manifest.table, tile_reader(manifest)
    table = table[table["tile_id"].isin(names)]
    known = dict(zip(table["tile_id"], zip(table["path"], table["sha256"], strict=True), strict=True))
    sheet = np.full((-(-len(names) // SHEET_COLUMNS) * px, SHEET_COLUMNS * px, 3), 255, np.uint8)
    place: IntArray = np.full(len(names), -1)
    n = 0

    def thumbnail(tile_id: str) -> np.ndarray | None:
        pixels = read(*known[tile_id]) if tile_id in known else None
        return None if pixels is None else resize(pixels, px)

    with ThreadPoolExecutor(n_cores()) as pool:
        for i, pixels in enumerate(pool.map(thumbnail, names)):
            if pixels is None:
                continue
            top, left = divmod(n, SHEET_COLUMNS)
            sheet[top * px : (top + 1) * px, left * px : (left + 1) * px] = pixels
            place[i], n = n, n + 1
    used = sheet[: max(1, -(-n // SHEET_COLUMNS)) * px]
    return {"px": px, "columns": SHEET_COLUMNS, "place": encode(place, "i4"), "jpeg": jpeg(used)}
