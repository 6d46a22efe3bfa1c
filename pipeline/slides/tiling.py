"""Tile a slide: find its tissue, write the grid of tiles into the run folder, and draw an overlay for checking."""

import dataclasses
from pathlib import Path
from typing import Any

from PIL import Image

from pipeline.errors import BadSlide, StaleInput, UsageError
from pipeline.runtime.console import log
from pipeline.slides.base import FAST_PNG, Slide
from pipeline.slides.find import SlideEntry
from pipeline.slides.grid import (
    SCHEMA,
    THUMBNAIL_PX,
    Grid,
    Tiling,
    read_grid,
    squares_of,
    thumbnail_path,
    tiles_with_tissue,
    write_grid,
)
from pipeline.slides.openslide_reader import check_file, open_slide
from pipeline.slides.outcomes import last_problem
from pipeline.slides.overlay import draw_overlay
from pipeline.slides.place import check_same_content, content_facts, grid_path
from pipeline.slides.scale import same_mpp
from pipeline.slides.tiff_header import TO_PYRAMID
from pipeline.slides.tissue import Tissue, find_tissue
from pipeline.storage import atomic, freshness, records

SAME_SCALE = 0.05
"""Largest relative difference of two scales that are the same to a network: scanners of one kind differ by as much."""

HIDDEN = 0.01
"""Share of a slide hidden by its alpha channel from which on the share is logged."""


def check_scale(size: int, mpp: float | None, *, tile_px: int, tile_mpp: float, force: bool) -> None:
    """Check that a network gets tiles of the size and scale that it was trained on.

    Args:
        size: side in px of the tiles that the network was trained on.
        mpp: their scale in um/px, None if unknown.
        tile_px: side of the slide's tiles after resizing.
        tile_mpp: their scale after resizing.
        force: accept another size or scale.

    Raises:
        UsageError: another scale or size.
    """
    if force:
        return
    if mpp is not None and abs(tile_mpp - mpp) > SAME_SCALE * mpp:
        raise UsageError(
            f"the network was trained at {mpp:.3g} um/px and would get {tile_mpp:.3g}: leave --mpp-target out, or pass "
            "--force if that is what you want"
        )
    if tile_px != size:
        raise UsageError(
            f"the network was trained on tiles of {size} px and would get {tile_px}: leave --tile-px out, or pass "
            "--force if that is what you want"
        )


def resolve_scale(size: int, mpp: float | None, *, tile_px: int | None, mpp_target: float | None) -> tuple[int, float]:
    """Return side (px) and scale (um/px) of the tiles for the network: as requested, else as it was trained.

    Raises:
        UsageError: no scale is known.
    """
    scale = mpp_target or mpp
    if scale is None:
        raise UsageError("the model does not state the scale it was trained at: give it by --mpp-target (um/px)")
    return tile_px or size, scale


def tile_slide(run: Path, entry: SlideEntry, tiling: Tiling, *, force: bool, restart: bool) -> Grid:
    """Return the grid of a slide; it is made unless it is current.

    Args:
        run: the run folder.
        entry: the slide.
        tiling: the options.
        force: enlarge a slide that is coarser than the network's scale.
        restart: make the grid again, also if it is another slide's of this name.

    Raises:
        BadSlide: it cannot be opened, its scale is not known, it has no tissue, or it is too small or too coarse.
        StaleInput: the run holds the grid of another slide of this name.
    """
    path = grid_path(run, entry.name)
    check_file(entry.path)
    sha256 = atomic.sha256_file(entry.path)
    check_same_content(path, entry.path, sha256=sha256, restart=restart)
    options: dict[str, Any] = {**dataclasses.asdict(tiling), "mpp": entry.mpp.mpp if entry.mpp else None}
    artifact = records.Artifact(path, SCHEMA, "tile", options, [entry.path], known={entry.path: sha256})
    if freshness.reusable_record(artifact, restart=restart) is None:
        with open_slide(entry.path, entry.mpp) as slide:
            _make_grid(artifact, slide, entry.name, tiling, force=force)
    return read_grid(path)


def _make_grid(artifact: records.Artifact, slide: Slide, name: str, tiling: Tiling, *, force: bool) -> None:
    """Find the tiles of an open slide, and write the grid, the thumbnail and the overlay."""
    squares = squares_of(slide, tiling, force=force)
    thumbnail = slide.thumbnail(THUMBNAIL_PX)
    tissue = find_tissue(thumbnail, mpp=slide.mpp, threshold=tiling.threshold, keep_ink=tiling.keep_ink)
    table, n_squares = tiles_with_tissue(slide, thumbnail, squares, tissue, min_tissue=tiling.min_tissue)
    path = artifact.path
    image, overlay = thumbnail_path(path, name), path.with_name(f"{name}-overlay.png")
    with atomic.atomic(image) as temporary:
        Image.fromarray(thumbnail.pixels).save(temporary, format="PNG", compress_level=FAST_PNG)
    draw_overlay(overlay, thumbnail, table[["x", "y"]].to_numpy(), side=squares.side, ink=tissue.ink)
    details = {
        **content_facts(slide.path, artifact.known[slide.path], path.parent),
        "threshold": tissue.threshold,
        "squares": n_squares,
        "tissue_share_of_slide": float(tissue.mask.mean()),
        "ink_share_of_slide": float(tissue.ink.mean()),
        "thumbnail": image.name,
        "thumbnail_downsample": thumbnail.downsample,
    }
    write_grid(artifact, slide, table, squares, outputs=[image, overlay], details=details)
    for note in notes(slide, tissue):
        log.warning(f"tile: {name}: {note}")
    is_exact = abs(squares.reduction - 1) < 1e-9
    resized = "not resized" if is_exact else f"{squares.reduction:.3g} px of it per px of the resized tile"
    log.info(
        f"tile: {name}: {len(table)} of {n_squares} tiles, {squares.side} px at {slide.mpp:.4g} um/px "
        f"({slide.scale.origin}) resized to {squares.tile_px} px; read from level {squares.level} of "
        f"{len(slide.level_downsamples)} ({resized}), stride {squares.stride} px, tissue above saturation "
        f"{tissue.threshold:.3f}: {overlay}"
    )


def notes(slide: Slide, tissue: Tissue) -> list[str]:
    """Return what the user has to know about the reading of a slide, each as a short sentence."""
    found = []
    if slide.scale.note:
        found.append(f"{slide.scale.origin} {slide.mpp:g} um/px is used, but {slide.scale.note}")
    if slide.n_subifds:
        found.append(
            f"its {slide.n_subifds} smaller levels are in SubIFDs, which OpenSlide does not read: all tiles are read "
            f"from the full resolution, which is slow; to convert it: {TO_PYRAMID}"
        )
    if (hidden := slide.hidden_share()) >= HIDDEN:
        found.append(f"its alpha channel hides {hidden:.1%}, which counts as glass; drop the channel if it is a mask")
    if tissue.ink.any():
        found.append(
            f"pen marks cover {max(tissue.ink.mean(), 0.001):.1%} of the slide and are left out; --keep-ink counts "
            "them as tissue"
        )
    if slide.note:
        found.append(slide.note)
    return found


def grid_of(run: Path, entry: SlideEntry, *, size: int, mpp: float | None, force: bool) -> Grid:
    """Return the grid of a slide for a network: as `pipeline.tile` made it, or made now with default options.

    Args:
        run: the run folder.
        entry: the slide.
        size: side in px of the tiles that the network was trained on.
        mpp: their scale in um/px, None if unknown.
        force: as `tile_slide`, and accept another size or scale.

    Raises:
        BadSlide: the slide cannot be opened or was not tiled.
        StaleInput: the grid is another slide's, or was made with another mpp.
        UsageError: the grid has another scale or size than the network's tiles.
    """
    path = grid_path(run, entry.name)
    if not path.is_file():
        if mpp is not None:
            return tile_slide(run, entry, Tiling(size, mpp), force=force, restart=False)
        open_slide(entry.path, entry.mpp).close()  # its own fault is the better reason
        raise BadSlide(
            last_problem(path.parent, "tile")
            or f"{entry.path}: not tiled yet, and the model does not state the scale it was trained at: run "
            "`python -m pipeline.tile` with --mpp-target"
        )
    grid = read_grid(path)
    info = grid.info
    if entry.mpp is not None and not same_mpp(entry.mpp.mpp, info.mpp):
        raise StaleInput(f"{path} was made with {info.mpp:g} um/px, not {entry.mpp.mpp:g}: run pipeline.tile again")
    if entry.path.is_file():
        check_same_content(path, entry.path, sha256=atomic.sha256_file(entry.path), restart=False)
    check_scale(size, mpp, tile_px=info.tile_px, tile_mpp=info.tile_mpp, force=force)
    return grid
