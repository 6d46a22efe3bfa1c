"""Describe every tile without any training: colours, hand-crafted texture, and a network with random weights.

Reads manifest.csv; writes baselines.h5 (schema baselines/1.0). fit_heads fits the baselines of the comparison on it.
A plan has one baselines.h5 for all of its parts: nothing in it depends on the split. A stopped run begins again.
A tile that cannot be read keeps its row, marked in /status, and the exit code is 3.

    python -m pipeline.baselines --run reports/mine
"""

import contextlib
import dataclasses
from collections.abc import Generator
from typing import TYPE_CHECKING, Literal

from pipeline.cli.command import Command
from pipeline.cli.options import Common, check
from pipeline.errors import EXIT_OK, EXIT_SKIPPED, UsageError
from pipeline.names import RunFile
from pipeline.runtime.console import log
from pipeline.storage import freshness, records
from pipeline.storage.protocol import read_protocol

if TYPE_CHECKING:
    import numpy as np

    from pipeline.network.engines import Engine
    from pipeline.network.tile_files import TileFiles
    from pipeline.tiles.manifest import Manifest

MOST_PX, LEAST_PX = 150, 16
"""Bounds of the default input side: beyond them an untrained network costs time, or has nothing left to pool."""


@dataclasses.dataclass(frozen=True)
class BaselinesOptions:
    """How the untrained network sees the tiles."""

    baseline_px: int | None = None
    """Side in px of its input; default: the tiles' median width, at most 150. Colours and texture are always taken
    from the tiles at their own size."""

    baseline_normalise: Literal["none", "source"] = "none"
    """source: white point and stains of each group are moved to fixed ones, that of Macenko's reference; as
    --normalise for the network. Not with --protocol random."""

    def __post_init__(self) -> None:
        """Check ranges."""
        check(
            self.baseline_px is None or 16 <= self.baseline_px <= 1024,
            f"--baseline-px {self.baseline_px}: 16 to 1024 px",
        )


def input_side(manifest: "Manifest", options: BaselinesOptions) -> int:
    """Return the side of the untrained network's input in px."""
    if options.baseline_px is not None:
        return options.baseline_px
    return min(MOST_PX, max(LEAST_PX, int(manifest.readable["width"].median())))


def tiles_to_describe(manifest: "Manifest", px: int, options: BaselinesOptions, *, workers: int) -> "TileFiles":
    """Return the tiles of the manifest, which the untrained network gets at `px`.

    Raises:
        UsageError: normalisation by source, where a source is in several splits.
        Interrupted: SIGINT or SIGTERM while stains are estimated.
    """
    from pipeline.network.preprocess import Preprocess
    from pipeline.network.tile_files import TileFiles, log_colours
    from pipeline.tiles.stain_normalisation import REFERENCE

    if options.baseline_normalise == "none":
        return TileFiles.of_table(manifest.root, manifest.table, Preprocess(px))
    protocol = read_protocol(manifest.path.parent)
    splits_of_source = manifest.readable.groupby("group")["split"].nunique().max()
    if splits_of_source > 1 or "random" in (manifest.details["protocol"], *(protocol.arms if protocol else ())):
        raise UsageError(
            "--baseline-normalise source: a source is in several splits (tiles without a group are one source; "
            "--protocol random and --random-control divide sources): leave it out"
        )
    table = manifest.table.assign(split="")  # the file does not depend on the split
    tiles = TileFiles.of_table(manifest.root, table, Preprocess(px, stains=REFERENCE)).fit_colours(workers=workers)
    log_colours("baselines", [tiles])
    return tiles


def compute(
    tiles: "TileFiles", engine: "Engine", common: Common, *, row: "np.dtype", skipped: dict[int, str]
) -> Generator["np.ndarray"]:
    """Yield blocks of rows in the tiles' order; the tiles that could not be used are added to `skipped`.

    Raises:
        Interrupted: SIGINT or SIGTERM.
        BadInput: too many tiles cannot be used.
        PipelineError: the network gives a number that is not finite; names the tile.
    """
    import numpy as np

    from pipeline.network.extraction.pixel_features import described_blocks
    from pipeline.runtime.device import n_workers
    from pipeline.storage.baseline_features import FEATURES

    blocks = described_blocks(
        tiles,
        engine,
        FEATURES,
        skipped=skipped,
        workers=n_workers(common.workers),
        max_bad=common.max_bad,
        label="baselines",
        lost="baselines.h5 is not written yet and its work begins again",
    )
    with contextlib.closing(blocks):
        for block, seen in blocks:
            rows = np.zeros(len(block), row)
            for name in ("sha256", "status", "colour_histogram", "handcrafted"):
                rows[name] = [getattr(tile, name) for tile in block]
            rows["untrained"] = seen
            yield rows


def run(common: Common, options: BaselinesOptions) -> int:
    """Describe all tiles, or do nothing if the file is current; return the exit code."""
    from pipeline.storage.baseline_features import SCHEMA, row_type, write_baselines
    from pipeline.tiles.manifest import read_manifest

    out = common.run / RunFile.BASELINES
    manifest = read_manifest(common.run / RunFile.MANIFEST)
    px = input_side(manifest, options)
    chosen: dict[str, int | str] = {"baseline_px": px}
    if options.baseline_normalise != "none":
        chosen["baseline_normalise"] = options.baseline_normalise
    artifact = records.Artifact(out, SCHEMA, "baselines", chosen, [manifest.path], common.seed)
    record = freshness.reusable_record(artifact, restart=common.restart)
    if record is not None:
        return EXIT_SKIPPED if record["details"]["skipped"] else EXIT_OK

    from pipeline.network.extraction.pixel_features import ARCH, build_untrained, untrained_engine
    from pipeline.runtime.device import n_workers, use_device
    from pipeline.tiles.handcrafted_features import HANDCRAFTED_NAMES, N_COLOURS

    tiles = tiles_to_describe(manifest, px, options, workers=n_workers(common.workers))
    device = use_device(common.device, common.threads, deterministic=common.deterministic)
    model = build_untrained(common.seed, px)
    engine = untrained_engine(model, device)
    skipped: dict[int, str] = {}
    row = row_type(colour_histogram=N_COLOURS, handcrafted=len(HANDCRAFTED_NAMES), untrained=model.width)
    tile_id = list(manifest.table["tile_id"])
    blocks = compute(tiles, engine, common, row=row, skipped=skipped)
    with contextlib.closing(blocks):
        write_baselines(out, tile_id, blocks, row=row, names=HANDCRAFTED_NAMES, px=px, seed=common.seed, arch=ARCH)
    named = {tile_id[number]: problem for number, problem in skipped.items()}
    normalised = {} if tiles.colours is None else {"normalised": tiles.colours.facts}
    records.write_record(artifact, details={"skipped": named} | normalised, device=str(device))
    log.info(f"baselines: {len(tile_id)} tiles described in {out}, the untrained network at {px} px")
    for name, problem in named.items():
        log.warning(f"baselines: skipped {name}: {problem}")
    return EXIT_SKIPPED if skipped else EXIT_OK


main = Command("pipeline.baselines", __doc__, BaselinesOptions, run)
"""Entry point of `python -m pipeline.baselines`."""


if __name__ == "__main__":
    raise SystemExit(main())
