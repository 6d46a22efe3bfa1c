"""Describe new tiles as baselines.h5 describes those of the run, for heads that take colours and texture."""

import contextlib
from pathlib import Path

import numpy as np
import torch

from pipeline.errors import BadInput, StaleInput
from pipeline.inference.saved_heads import SavedHeads
from pipeline.names import RunFile
from pipeline.network.extraction.pixel_features import build_untrained, described_blocks, untrained_engine
from pipeline.network.extraction.slide_tiles import SlideTiles
from pipeline.network.preprocess import Preprocess
from pipeline.network.tile_files import TileSource
from pipeline.runtime.console import log
from pipeline.slides.openslide_reader import open_slide
from pipeline.slides.scale import GivenMpp
from pipeline.storage import atomic
from pipeline.storage.embeddings.reader import OK, Embeddings
from pipeline.tiles.manifest import read_manifest
from pipeline.tiles.stain_normalisation import REFERENCE


def pixel_preprocess(saved: SavedHeads) -> Preprocess:
    """Return how the tiles of baselines.h5 were prepared for the untrained network, and their stains.

    Raises:
        StaleInput: the record of baselines.h5 does not state it.
    """
    record = saved.described or {}
    px = record.get("options", {}).get("baseline_px")
    if not isinstance(px, int) or not isinstance(record.get("seed"), int):
        raise StaleInput(f"the record of {RunFile.BASELINES} names no baseline_px or seed: run baselines --restart")
    return Preprocess(px, stains=REFERENCE if record["details"].get("normalised") else None)


def describe_tiles(
    saved: SavedHeads, tiles: TileSource, *, device: torch.device, workers: int, max_bad: float, label: str
) -> tuple[dict[str, np.ndarray], dict[int, str]]:
    """Return feature set -> (N, D) float32 of N tiles, and row -> problem of unreadable tiles, whose rows are zeros.

    All are in memory: 2.5 kB a tile, and 8 kB of the untrained network if a head takes it.

    Args:
        saved: the heads.
        tiles: N tiles, prepared by `pixel_preprocess`, their colours normalised if it has a target.
        device: runs the untrained network.
        workers: threads.
        max_bad: largest share of tiles that cannot be used.
        label: of the progress bar.

    Raises:
        BadInput: too many tiles cannot be used; names the first.
        Interrupted: SIGINT or SIGTERM; nothing is kept.
    """
    engine = None
    if "untrained" in saved.feature_sets and saved.described is not None:
        engine = untrained_engine(build_untrained(saved.described["seed"], tiles.size), device)
    label = f"{label} colours and texture"
    blocks = described_blocks(tiles, engine, workers=workers, max_bad=max_bad, label=label, lost="nothing was written")
    parts: dict[str, list[np.ndarray]] = {"colour_histogram": [], "handcrafted": [], "untrained": []}
    problems: dict[int, str] = {}
    with contextlib.closing(blocks):
        for block, seen in blocks:
            parts["colour_histogram"] += [tile.colour_histogram for tile in block]
            parts["handcrafted"] += [tile.handcrafted for tile in block]
            parts["untrained"] += list(seen)
            problems |= {tile.row: tile.problem for tile in block if tile.problem}
    return {name: np.stack(rows) for name, rows in parts.items() if name in saved.feature_sets}, problems


def describe_slide(
    saved: SavedHeads,
    content: Embeddings,
    slide: Path,
    manifest: Path,
    *,
    device: torch.device,
    workers: int,
) -> dict[str, np.ndarray]:
    """Return feature set -> (M, D) float32 of the M readable tiles of a slide, read at the size of the run's tiles.

    Args:
        saved: the heads.
        content: embeddings of the slide.
        slide: the slide.
        manifest: of the run's tiles.
        device: as for `describe_tiles`.
        workers: as for `describe_tiles`.

    Raises:
        BadInput: the slide is missing or another one, or the tiles of the run have several sizes.
        Interrupted: SIGINT or SIGTERM; nothing is kept.
    """
    info, coords = content.slide, content.coords
    assert info is not None, "the rows are tiles of a slide"  # noqa: S101
    assert coords is not None, "the rows are tiles of a slide"  # noqa: S101
    if not slide.is_file() or atomic.sha256_file(slide) != info.slide_sha256:
        raise BadInput(
            f"{slide}: missing or changed; heads that take colours and texture read its tiles: restore it, or take "
            "another --head"
        )
    sides = read_manifest(manifest).readable[["width", "height"]].to_numpy().ravel()
    if len(set(sides)) != 1:
        raise BadInput(
            f"{manifest}: its tiles have several sizes, so that their texture has no scale that a slide could be read "
            "at: take another --head"
        )
    with open_slide(slide, GivenMpp(info.mpp, slide.name, overrules=True)) as opened:
        tiles = SlideTiles(
            opened,
            coords[content.status == OK],
            side=info.patch_size_level0,
            preprocess=pixel_preprocess(saved),
            read_px=int(sides[0]),
        ).fit_colours(workers=workers)
        log.info(f"predict: tiles of {slide} are read again for colours and texture, at {sides[0]} px")
        found, _ = describe_tiles(saved, tiles, device=device, workers=workers, max_bad=0, label="predict")
    return found
