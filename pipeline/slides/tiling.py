"""A slide -> its grid of tiles in the run folder, with a thumbnail and an overlay for checking."""

import dataclasses
from pathlib import Path
from typing import Any

from pipeline.errors import BadSlide, UsageError
from pipeline.runtime.console import log
from pipeline.slides.find import SlideEntry
from pipeline.slides.grid import SCHEMA, THUMBNAIL_PX, Grid, grid_path, place, read_grid, squares_of, write_grid
from pipeline.slides.openslide_reader import open_slide
from pipeline.slides.overlay import draw_overlay
from pipeline.storage import freshness, records

SAME_SCALE = 0.05
"""Scales that differ by less are the same to a network: scanners of one kind differ by as much."""


@dataclasses.dataclass(frozen=True)
class Tiling:
    """How slides are cut."""

    tile_px: int
    """Side in px of what the network sees."""

    tile_mpp: float
    """Its scale, um/px."""

    stride: int | None = None
    """Level-0 px; None: by `overlap`."""

    overlap: float = 0.0
    """Share of a tile's side."""

    threshold: float | None = None
    """Of saturation, 0..1; None: Otsu's."""

    min_tissue: float = 0.25
    """Least share of tissue of a tile."""


def check_scale(size: int, mpp: float | None, *, tile_px: int, tile_mpp: float, force: bool) -> None:
    """Refuse to show a network another scale than it was trained at, unless that is what the user wants.

    Args:
        size: side in px of the tiles it was trained on.
        mpp: their scale, um/px, None if not known.
        tile_px: side that it is to see.
        tile_mpp: scale that it is to see.
        force: the user wants it.

    Raises:
        UsageError: another scale or side.
    """
    if force:
        return
    if mpp is not None and abs(tile_mpp - mpp) > SAME_SCALE * mpp:
        raise UsageError(
            f"the network was trained at {mpp:.3g} um/px and is to see {tile_mpp:.3g}: leave --mpp-target out, or pass "
            "--force if that is what you want"
        )
    if tile_px != size:
        raise UsageError(
            f"the network was trained on tiles of {size} px and is to see {tile_px}: leave --tile-px out, or pass "
            "--force if that is what you want"
        )


def resolve_scale(size: int, mpp: float | None, *, tile_px: int | None, mpp_target: float | None) -> tuple[int, float]:
    """Return side (px) and scale (um/px) of what the network is to see: as asked for, else as it was trained.

    Raises:
        UsageError: neither says the scale.
    """
    scale = mpp_target or mpp
    if scale is None:
        raise UsageError("the model does not say at which scale it was trained: give it by --mpp-target (um/px)")
    return tile_px or size, scale


def tile_slide(run: Path, entry: SlideEntry, tiling: Tiling, *, force: bool, restart: bool) -> Grid:
    """Return the grid of a slide; it is made unless it is current.

    Args:
        run: the run folder.
        entry: the slide.
        tiling: how it is cut.
        force: enlarge a slide that is coarser than the network's scale.
        restart: make it anew.

    Raises:
        BadSlide: it cannot be opened, its scale is not known, it has no tissue, or it is too small or too coarse.
    """
    path = grid_path(run, entry.name)
    chosen: dict[str, Any] = {**dataclasses.asdict(tiling), "mpp": entry.mpp}
    if not entry.path.is_file():
        raise BadSlide(f"{entry.path}: no such slide")
    artifact = records.Artifact(path, SCHEMA, "tile", chosen, [entry.path])
    if freshness.reusable_record(artifact, restart=restart) is not None:
        return read_grid(path)
    with open_slide(entry.path, entry.mpp) as slide:
        squares = squares_of(
            slide,
            tile_px=tiling.tile_px,
            tile_mpp=tiling.tile_mpp,
            stride=tiling.stride,
            overlap=tiling.overlap,
            force=force,
        )
        thumbnail = slide.thumbnail(THUMBNAIL_PX)
        table, details = place(slide, thumbnail, squares, threshold=tiling.threshold, min_tissue=tiling.min_tissue)
        overlay = path.with_name(f"{entry.name}-overlay.png")
        draw_overlay(
            overlay,
            thumbnail.pixels,
            table[["x", "y"]].to_numpy(),
            side=squares.side,
            scale=thumbnail.downsample,
            name=entry.name,
        )
        write_grid(
            path,
            slide,
            table,
            squares,
            thumbnail,
            name=entry.name,
            options=chosen,
            details=details,
            overlay=overlay,
        )
        how = "as it is" if abs(squares.reduction - 1) < 1e-9 else f"{squares.reduction:.3g} px of it for each px seen"
        log.info(
            f"tile: {entry.name}: {len(table)} of {details['squares']} tiles, {squares.side} px at {slide.mpp:.4g} "
            f"um/px seen as {squares.tile_px} px; read from level {squares.level} of {len(slide.level_downsamples)} "
            f"({how}), stride {squares.stride} px, tissue above saturation {details['threshold']:.3f}: {overlay}"
        )
    return read_grid(path)
