"""grid.csv: which squares of a slide are tiles. Columns x, y (level-0 px of the upper left corner) and tissue (share).

Rows go from the upper left to the lower right and are those of the slide's embeddings. The record says how large a tile
is and at which scale the network sees it; its companions are the slide's thumbnail and an overlay for checking.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from pipeline.errors import BadArtifact, BadSlide
from pipeline.slides.base import Slide, Thumbnail
from pipeline.slides.tissue import tissue_mask, tissue_shares
from pipeline.storage import atomic, records
from pipeline.storage.csv_files import read_table
from pipeline.storage.embeddings.slide_info import UNITS, SlideInfo, check_coords, read_info

SCHEMA = "grid/1.0"

THUMBNAIL_PX = 2048
"""Longer side of a thumbnail."""

MOST_ENLARGED = 1.1
"""A slide may be this much coarser than what the network was trained on before it is refused."""

MOST_TILES = 50_000_000
"""More squares than this are a mistake in the options."""


@dataclasses.dataclass(frozen=True)
class Squares:
    """Size and spacing of the tiles of one slide, and where they are read."""

    side: int
    """Level-0 px."""

    stride: int
    """Level-0 px."""

    tile_px: int
    """Side in px of what the network sees."""

    tile_mpp: float
    """Micrometres per px of it, as asked for; of whole level-0 px it may be off by half of one in a tile's side."""

    level: int
    """Level of the pyramid that is read."""

    reduction: float
    """Px of that level per px of what the network sees."""


def squares_of(
    slide: Slide, *, tile_px: int, tile_mpp: float, stride: int | None, overlap: float, force: bool
) -> Squares:
    """Return how a slide is cut.

    Args:
        slide: open.
        tile_px: side in px of what the network sees.
        tile_mpp: its scale, um/px.
        stride: level-0 px from one tile to the next; None: by `overlap`.
        overlap: share of a tile's side that the next one covers again.
        force: enlarge a slide that is coarser than the network's scale.

    Raises:
        BadSlide: it is smaller than a tile, or coarser than what the network was trained on.
    """
    if slide.mpp > MOST_ENLARGED * tile_mpp and not force:
        raise BadSlide(
            f"{slide.path}: {slide.mpp:g} um/px, but the network sees {tile_mpp:g}: what it looks for is not in these "
            "pixels; give a finer scan, or pass --force to enlarge them"
        )
    side = max(1, round(tile_px * tile_mpp / slide.mpp))
    if side > min(slide.dimensions):
        width, height = slide.dimensions
        raise BadSlide(
            f"{slide.path}: {width}x{height} px is smaller than one tile of {side} px ({tile_px} px at {tile_mpp:g} um)"
        )
    level = slide.best_level(side / tile_px)
    step = stride or max(1, round(side * (1 - overlap)))
    return Squares(side, step, tile_px, tile_mpp, level, side / tile_px / slide.level_downsamples[level])


def place(
    slide: Slide, thumbnail: Thumbnail, squares: Squares, *, threshold: float | None, min_tissue: float
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Return the tiles with enough tissue (columns x, y, tissue) and what decided them.

    The grid begins in the upper left corner; a rest at the right and lower edges that holds no whole tile is left out.

    Args:
        slide: open.
        thumbnail: of it.
        squares: how it is cut.
        threshold: of saturation, see `tissue_mask`.
        min_tissue: least share of tissue of a tile.

    Raises:
        BadSlide: no tile has enough, or the stride makes more tiles than anyone means.
    """
    width, height = slide.dimensions
    x, y = (np.arange(0, length - squares.side + 1, squares.stride) for length in (width, height))
    if len(x) * len(y) > MOST_TILES:
        raise BadSlide(f"{slide.path}: stride {squares.stride} makes {len(x) * len(y)} tiles: give a larger --stride")
    mask, used = tissue_mask(thumbnail, mpp=slide.mpp, threshold=threshold)
    high, wide = mask.shape
    shares = tissue_shares(mask, x * wide / width, y * high / height, squares.side / thumbnail.downsample)
    rows, columns = np.nonzero(shares >= min_tissue)
    if not len(rows):
        raise BadSlide(
            f"{slide.path}: no tissue: none of {shares.size} tiles has {min_tissue:g} of it at saturation {used:.3f}: "
            "lower --min-tissue or --threshold if there is some"
        )
    table = pd.DataFrame({"x": x[columns], "y": y[rows], "tissue": shares[rows, columns].round(3)})
    return table, {"threshold": used, "squares": int(shares.size), "tissue_share_of_slide": float(mask.mean())}


@dataclasses.dataclass(frozen=True)
class Grid:
    """The tiles of a slide."""

    path: Path
    """grid.csv itself."""

    table: pd.DataFrame
    """Columns x, y and tissue."""

    info: SlideInfo
    details: Mapping[str, Any]
    """From the record."""

    @property
    def coords(self) -> np.ndarray:
        """(N, 2) int32: x and y in level-0 px."""
        return self.table[["x", "y"]].to_numpy(np.int32)


def grid_path(run: Path, name: str) -> Path:
    """Return where the grid of a slide stands in a run.

    Raises:
        BadArtifact: the folder is a link, which may lead out of the run.
    """
    folder = run / atomic.SLIDES / name
    atomic.refuse_link(folder.parent)
    atomic.refuse_link(folder)
    return folder / "grid.csv"


def thumbnail_path(beside: Path, name: str) -> Path:
    """Return the path of the thumbnail beside a slide's grid or embeddings."""
    return beside.with_name(f"{name}-thumbnail.png")


def write_grid(
    path: Path,
    slide: Slide,
    table: pd.DataFrame,
    squares: Squares,
    thumbnail: Thumbnail,
    *,
    name: str,
    options: Mapping[str, Any],
    details: Mapping[str, Any],
    overlay: Path,
) -> None:
    """Write grid.csv, the thumbnail and the record; the overlay stands there already."""
    image = thumbnail_path(path, name)
    with atomic.atomic(image) as temporary:
        Image.fromarray(thumbnail.pixels).save(temporary, format="PNG")
    atomic.write_text(path, table[["x", "y", "tissue"]].to_csv(index=False, lineterminator="\n"))
    info = SlideInfo(
        slide=slide.path.name,
        slide_sha256=atomic.sha256_file(slide.path),
        slide_width=slide.dimensions[0],
        slide_height=slide.dimensions[1],
        mpp=slide.mpp,
        tile_px=squares.tile_px,
        tile_mpp=squares.tile_mpp,
        patch_size_level0=squares.side,
        stride_level0=squares.stride,
    )
    records.write_record(
        records.Artifact(path, SCHEMA, "tile", options, [slide.path]),
        outputs=[image, overlay],
        details={
            **dataclasses.asdict(info),
            **details,
            "units": UNITS,
            "format": slide.format,
            "level": squares.level,
            "level_downsample": slide.level_downsamples[squares.level],
            "thumbnail": image.name,
            "thumbnail_downsample": thumbnail.downsample,
        },
    )


def read_grid(path: Path) -> Grid:
    """Read grid.csv after checking it against its record.

    Raises:
        BadArtifact: missing, damaged or edited, or tiles that are not in order or reach out of the slide.
    """

    def refuse(rule: str) -> BadArtifact:
        return BadArtifact(f"{path}: {rule}: run `python -m pipeline.tile --restart`")

    record = records.check_artifact(path, schema=SCHEMA)
    details = record["details"]
    info = read_info(details, refuse)
    if not isinstance(details.get("thumbnail_downsample"), float | int):
        raise refuse("its record does not say how much smaller the thumbnail is")
    table = read_table(path, texts=("x", "y", "tissue"), refuse=refuse)
    for column in ("x", "y"):
        if not table[column].str.fullmatch(r"[0-9]{1,9}").all():
            raise refuse(f"{column} is no number of px")
        table[column] = table[column].astype(np.int64)
    check_coords(table[["x", "y"]].to_numpy(), info, refuse)
    return Grid(path=path, table=table, info=info, details=details)
