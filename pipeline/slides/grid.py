"""Choose the squares of a slide that are tiles, and write and read them as grid.csv.

Columns: x, y (level-0 px of the upper left corner) and tissue (share). Rows go from the upper left to the lower right
and are the rows of the slide's embeddings. The record holds the size of a tile and the scale for the network. The
slide's thumbnail and an overlay for checking are written with it.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.errors import BadArtifact, BadSlide
from pipeline.slides.base import Slide, Thumbnail
from pipeline.slides.tissue import Tissue, tissue_shares
from pipeline.storage import atomic, records
from pipeline.storage.csv_files import read_table
from pipeline.storage.embeddings.slide_info import UNITS, SlideInfo, check_coords, read_info

SCHEMA = "grid/1.0"

THUMBNAIL_PX = 2048
"""Longer side of a thumbnail."""

MOST_ENLARGED = 1.1
"""Largest ratio of the slide's um/px to that of the network's tiles."""

MOST_TILES = 50_000_000
"""Most squares; more are a mistake in the options."""


@dataclasses.dataclass(frozen=True)
class Tiling:
    """Options that decide how slides are tiled."""

    tile_px: int
    """Side of a tile in px after it is resized for the network."""

    tile_mpp: float
    """um/px of a tile after it is resized for the network."""

    stride: int | None = None
    """Level-0 px from one tile to the next; None: by `overlap`."""

    overlap: float = 0.0
    """Share of a tile's side that the next tile covers again."""

    threshold: float | None = None
    """Saturation of tissue, 0..1; None: Otsu's threshold."""

    min_tissue: float = 0.25
    """Least share of tissue of a tile."""

    keep_ink: bool = False
    """Count pen marks as tissue."""


@dataclasses.dataclass(frozen=True)
class Squares:
    """Size and spacing of the tiles of one slide, and the level that they are read from."""

    side: int
    """Side in level-0 px."""

    stride: int
    """Level-0 px from one tile to the next."""

    tile_px: int
    """Side in px after resizing for the network."""

    tile_mpp: float
    """Requested um/px after resizing; whole level-0 px can change it by half a px in a tile's side."""

    level: int
    """Level of the pyramid that is read."""

    reduction: float
    """Px of that level per px of the resized tile."""


def squares_of(slide: Slide, tiling: Tiling, *, force: bool) -> Squares:
    """Return size, spacing and level of the tiles of a slide.

    Args:
        slide: open.
        tiling: the options.
        force: enlarge a slide that is coarser than the network's scale.

    Raises:
        BadSlide: it is smaller than a tile, or coarser than the tiles that the network was trained on.
    """
    tile_px, tile_mpp = tiling.tile_px, tiling.tile_mpp
    if slide.mpp > MOST_ENLARGED * tile_mpp and not force:
        raise BadSlide(
            f"{slide.path}: {slide.mpp:g} um/px, but the network needs {tile_mpp:g}: these pixels lack the detail that "
            "it was trained on; give a finer scan, or pass --force to enlarge them"
        )
    side = max(1, round(tile_px * tile_mpp / slide.mpp))
    if side > min(slide.dimensions):
        width, height = slide.dimensions
        raise BadSlide(
            f"{slide.path}: {width}x{height} px is smaller than one tile of {side} px ({tile_px} px at {tile_mpp:g} um)"
        )
    level = slide.best_level(side / tile_px)
    step = tiling.stride or max(1, round(side * (1 - tiling.overlap)))
    return Squares(side, step, tile_px, tile_mpp, level, side / tile_px / slide.level_downsamples[level])


def tiles_with_tissue(
    slide: Slide, thumbnail: Thumbnail, squares: Squares, tissue: Tissue, *, min_tissue: float
) -> tuple[pd.DataFrame, int]:
    """Return the tiles with enough tissue (columns x, y, tissue), and the number of squares of the grid.

    The grid begins in the upper left corner. The right and lower edges that hold no whole tile are left out.

    Args:
        slide: open.
        thumbnail: thumbnail of the slide.
        squares: size and spacing of the tiles.
        tissue: tissue mask on the thumbnail.
        min_tissue: least share of tissue of a tile.

    Raises:
        BadSlide: no tile has enough tissue, or the stride makes more tiles than anyone means.
    """
    width, height = slide.dimensions
    x, y = (np.arange(0, length - squares.side + 1, squares.stride) for length in (width, height))
    if len(x) * len(y) > MOST_TILES:
        raise BadSlide(f"{slide.path}: stride {squares.stride} makes {len(x) * len(y)} tiles: give a larger --stride")
    high, wide = tissue.mask.shape
    shares = tissue_shares(tissue.mask, x * wide / width, y * high / height, squares.side / thumbnail.downsample)
    rows, columns = np.nonzero(shares >= min_tissue)
    if not len(rows):
        ink = f"; pen marks cover {tissue.ink.mean():.1%}: --keep-ink counts them" if tissue.ink.any() else ""
        raise BadSlide(
            f"{slide.path}: no tissue: none of {shares.size} tiles has a share of {min_tissue:g} at saturation "
            f"{tissue.threshold:.3f}: lower --min-tissue or --threshold if the slide has tissue{ink}"
        )
    table = pd.DataFrame({"x": x[columns], "y": y[rows], "tissue": shares[rows, columns].round(3)})
    return table, shares.size


@dataclasses.dataclass(frozen=True)
class Grid:
    """The tiles of a slide."""

    path: Path
    """grid.csv itself."""

    table: pd.DataFrame
    """Columns x, y and tissue."""

    info: SlideInfo
    details: Mapping[str, Any]
    """Details of the record."""

    @property
    def coords(self) -> np.ndarray:
        """(N, 2) int32: x and y in level-0 px."""
        return self.table[["x", "y"]].to_numpy(np.int32)


def thumbnail_path(table: Path, name: str) -> Path:
    """Return the path of the thumbnail next to a slide's grid or embeddings."""
    return table.with_name(f"{name}-thumbnail.png")


def write_grid(
    artifact: records.Artifact,
    slide: Slide,
    table: pd.DataFrame,
    squares: Squares,
    *,
    outputs: Sequence[Path],
    details: Mapping[str, Any],
) -> None:
    """Write grid.csv and its record.

    Args:
        artifact: how it is made; `known` holds the hash of the slide's file.
        slide: open.
        table: columns x, y and tissue.
        squares: size and spacing of the tiles.
        outputs: thumbnail and overlay, which are written already.
        details: further facts for the record.
    """
    atomic.write_text(artifact.path, table[["x", "y", "tissue"]].to_csv(index=False, lineterminator="\n"))
    info = SlideInfo(
        slide=slide.path.name,
        slide_sha256=artifact.known[slide.path],
        slide_width=slide.dimensions[0],
        slide_height=slide.dimensions[1],
        mpp=slide.mpp,
        tile_px=squares.tile_px,
        tile_mpp=squares.tile_mpp,
        patch_size_level0=squares.side,
        stride_level0=squares.stride,
        bounds_x=slide.bounds[0],
        bounds_y=slide.bounds[1],
    )
    facts = {
        "units": UNITS,
        "format": slide.format,
        "mpp_from": slide.scale.origin,
        "level": squares.level,
        "level_downsample": slide.level_downsamples[squares.level],
    }
    records.write_record(artifact, outputs=outputs, details={**dataclasses.asdict(info), **facts, **details})


def read_grid(path: Path) -> Grid:
    """Read grid.csv after checking it against its record.

    Raises:
        BadArtifact: missing, damaged or edited, or tiles that are not in order or reach out of the slide.
    """

    def refuse(rule: str) -> BadArtifact:
        return BadArtifact(f"{path}: {rule}: run `python -m pipeline.tile` again with --restart")

    record = records.check_artifact(path, schema=SCHEMA)
    details = record["details"]
    info = read_info(details, refuse)
    if not isinstance(details.get("thumbnail_downsample"), float | int):
        raise refuse("its record does not hold the thumbnail's downsample")
    table = read_table(path, texts=("x", "y", "tissue"), refuse=refuse)
    for column in ("x", "y"):
        if not table[column].str.fullmatch(r"[0-9]{1,9}").all():
            raise refuse(f"{column} is not a number of px")
        table[column] = table[column].astype(np.int64)
    check_coords(table[["x", "y"]].to_numpy(), info, refuse)
    return Grid(path=path, table=table, info=info, details=details)
