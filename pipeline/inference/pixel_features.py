"""Describe new tiles as baselines.h5 describes those of the run, for heads that take colours and texture."""

import contextlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from pipeline.errors import BadInput, StaleInput
from pipeline.inference.saved_heads import SavedHeads
from pipeline.names import RunFile
from pipeline.network.extraction.pixel_features import build_untrained, described_blocks, untrained_engine
from pipeline.network.preprocess import MOST_PX, Preprocess
from pipeline.network.tile_files import TileFiles
from pipeline.runtime.console import log
from pipeline.storage import atomic
from pipeline.storage.embeddings.reader import OK, Embeddings
from pipeline.tiles.decoding import square_name
from pipeline.tiles.manifest import Manifest, read_manifest
from pipeline.tiles.stain_normalisation import REFERENCE

TEXTURE = "handcrafted"
"""The feature set that is measured per pixel of the stored tile, so that it needs tiles of the run's size."""

NO_SCALE = "{}: its tiles have several sizes, so that a slide cannot be read at the scale of their texture"
"""Why texture of a slide cannot be measured, with the manifest to fill in."""


def pixel_preprocess(saved: SavedHeads) -> Preprocess:
    """Return how the tiles of baselines.h5 were prepared for the untrained network, and their stains.

    Raises:
        StaleInput: the record of baselines.h5 does not state it.
    """
    record = saved.described or {}
    px, seed = record.get("options", {}).get("baseline_px"), record.get("seed")
    if type(px) is not int or not 1 <= px <= MOST_PX or type(seed) is not int or not 0 <= seed < 2**63:
        raise StaleInput(f"the record of {RunFile.BASELINES} has no baseline_px or seed: run baselines --restart")
    return Preprocess(px, stains=REFERENCE if record["details"].get("normalised") else None)


def tile_side(manifest: Manifest) -> int | None:
    """Return the side in px of the run's tiles; None if they differ or are not square."""
    sides = manifest.readable[["width", "height"]].to_numpy().ravel()
    return int(sides[0]) if len(set(sides)) == 1 else None


def why_no_description(slide: Path, manifest: Path) -> str:
    """Return why colours and texture of a slide cannot be measured: no slide, or no scale; "" if they can."""
    if not slide.is_file():
        return f"{slide} is missing, and its tiles are needed for colours and texture"
    return "" if tile_side(read_manifest(manifest)) else NO_SCALE.format(manifest)


def describe_tiles(
    saved: SavedHeads,
    tiles: TileFiles,
    *,
    device: torch.device,
    workers: int,
    max_bad: float,
    label: str,
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
        BadInput: too many tiles cannot be used, or tiles have another size; names the first.
        Interrupted: SIGINT or SIGTERM; nothing is kept.
    """
    sets = saved.feature_sets
    engine = None
    if "untrained" in sets and saved.described is not None:
        engine = untrained_engine(build_untrained(saved.described["seed"], tiles.size), device)
    label, lost = f"{label} colours and texture", "nothing was written"
    problems: dict[int, str] = {}
    blocks = described_blocks(
        tiles, engine, sets, skipped=problems, workers=workers, max_bad=max_bad, label=label, lost=lost
    )
    parts: dict[str, list[np.ndarray]] = {"colour_histogram": [], TEXTURE: [], "untrained": []}
    with contextlib.closing(blocks):
        for block, seen in blocks:
            for tile in block:
                if tiles.side and TEXTURE in sets and not tile.problem and tile.sides != (tiles.side, tiles.side):
                    raise BadInput(
                        f"{tiles.name(tile.row)}: {tile.sides[1]}x{tile.sides[0]} px, but the run's tiles have "
                        f"{tiles.side}x{tiles.side} px, and texture is measured per pixel: give tiles of that size and "
                        "scale, or another --head"
                    )
            parts["colour_histogram"] += [tile.colour_histogram for tile in block]
            parts[TEXTURE] += [tile.handcrafted for tile in block]
            parts["untrained"] += list(seen)
    return {name: np.stack(rows) for name, rows in parts.items() if name in sets}, problems


def describe_slide(
    saved: SavedHeads,
    content: Embeddings,
    slide: Path,
    manifest: Manifest,
    *,
    device: torch.device,
    workers: int,
) -> Mapping[str, np.ndarray]:
    """Return feature set -> (M, D) float32 of the M readable tiles of a slide, read at the size of the run's tiles.

    Args:
        saved: the heads.
        content: embeddings of the slide.
        slide: the slide.
        manifest: of the run's tiles.
        device: as for `describe_tiles`.
        workers: as for `describe_tiles`.

    Raises:
        BadInput: the slide is missing or another one, a tile cannot be read, or a head takes texture and the tiles of
            the run have several sizes.
        Interrupted: SIGINT or SIGTERM; nothing is kept.
    """
    info, coords = content.slide, content.coords
    assert info is not None, "the rows are tiles of a slide"  # noqa: S101
    assert coords is not None, "the rows are tiles of a slide"  # noqa: S101
    other = "take a head without colours and texture, such as --head softmax"
    if not slide.is_file() or atomic.sha256_file(slide) != info.slide_sha256:
        raise BadInput(
            f"{slide}: missing or changed, and its tiles are read for colours and texture: restore it, or {other}"
        )
    side = tile_side(manifest)
    if side is None and TEXTURE in saved.feature_sets:
        raise BadInput(f"{NO_SCALE.format(manifest.path)}: {other}")
    px = side or info.tile_px
    names = [square_name(x, y, side=info.patch_size_level0, px=px) for x, y in coords[content.status == OK].tolist()]
    tiles = TileFiles(slide, names, None, pixel_preprocess(saved)).fit_colours(workers=workers)
    log.info(f"predict: tiles of {slide} are read again for colours and texture, at {px} px")
    found, problems = describe_tiles(saved, tiles, device=device, workers=workers, max_bad=1, label="predict")
    if problems:
        first = problems[min(problems)]
        raise BadInput(
            f"{first}: {len(problems)} of {len(names)} tiles cannot be read for colours and texture: {other}"
        )
    return found
