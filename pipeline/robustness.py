"""Test the heads on corrupted test tiles: colours, stain, light, blur, JPEG, resolution, rotation.

Each corruption changes a tile's own pixels, which then pass through the trained network once, so that all heads predict
from the same pixels. Fused heads, and baselines next to them, get colours and texture of these pixels. Test rows are
predicted, never fitted. Reads predictions.csv, the tiles, the model and heads/; writes robustness.csv. A command that
is stopped keeps nothing and starts again. The parts of a plan are pooled.

    python -m pipeline.robustness --run reports/mine
"""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from pipeline.cli.command import Command
from pipeline.cli.fold_runs import each_part
from pipeline.cli.options import Common, check, plain
from pipeline.errors import EXIT_OK, EXIT_SKIPPED, BadArtifact, BadInput
from pipeline.names import COLOUR_AND_TEXTURE, FILES, FUSED, MAIN, RunFile
from pipeline.runtime.console import log
from pipeline.storage import atomic, freshness, records
from pipeline.storage.protocol import read_protocol

if TYPE_CHECKING:
    import numpy as np
    import torch

    from pipeline.comparison.predictions import Predictions
    from pipeline.inference.saved_heads import SavedHeads
    from pipeline.inference.tiles import TrainedNetwork
    from pipeline.network.model_file import Model
    from pipeline.network.preprocess import Preprocess
    from pipeline.network.tile_files import TileFiles
    from pipeline.storage.predictions.csv_table import HeadOutput
    from pipeline.storage.protocol import Protocol

Name = Literal["colour_shift", "stain_change", "brightness", "blur", "jpeg", "half_resolution", "rotation"]


@dataclasses.dataclass(frozen=True)
class RobustnessOptions:
    """Which corruptions, and on how many tiles."""

    corruptions: tuple[Name, ...] = get_args(Name)
    """Corruptions of the test tiles."""

    robustness_tiles: int | None = None
    """Largest number of test tiles, drawn at random by --seed. Default: all."""

    def __post_init__(self) -> None:
        """Check ranges."""
        names, n = self.corruptions, self.robustness_tiles
        check(names, "--corruptions: at least one is needed")
        check(len(set(names)) == len(names), f"--corruptions {' '.join(names)}: one is named twice")
        check(n is None or n >= 1, f"--robustness-tiles {n}: at least 1")


def run(common: Common, options: RobustnessOptions) -> int:
    """Test the heads of the run, or those of its plan part by part, on corrupted tiles; return the exit code."""
    return run_parts(common, read_protocol(common.run), options)


def run_parts(common: Common, protocol: "Protocol | None", options: RobustnessOptions) -> int:
    """Do the work of `run` for a plan that was read; None: a single split."""
    if protocol is None:
        return write_robustness(common, options)
    random_controls = {protocol.folder(part) for part in protocol.parts if part.arm != protocol.main_arm}

    def part(place: Common) -> int:
        return EXIT_OK if place.run in random_controls else write_robustness(place, options)

    code = each_part(common, protocol, part, what="robustness")
    pool_parts(protocol, options)
    return code


def pool_parts(protocol: "Protocol", options: RobustnessOptions) -> None:
    """Write the robustness.csv of a plan's main arm unless it is current."""
    from pipeline.storage.predictions import corrupted as stored

    parts = [part for part in protocol.parts if part.arm == protocol.main_arm]
    files = [protocol.folder(part) / RunFile.ROBUSTNESS for part in parts]
    out = protocol.run / RunFile.ROBUSTNESS
    artifact = records.Artifact(out, stored.SCHEMA, "robustness", plain(options), files, protocol.seeds[0])
    if freshness.reusable_record(artifact) is not None:
        return
    atomic.write_text(out, stored.pool([(part.seed, part.fold, path) for part, path in zip(parts, files, strict=True)]))
    records.write_record(artifact, details={"n_parts": len(parts)})
    log.info(f"robustness: pooled {len(parts)} parts in {out}")


def write_robustness(common: Common, options: RobustnessOptions) -> int:
    """Write robustness.csv of one run unless it is current; return the exit code."""
    import numpy as np

    from pipeline.comparison.read import read_predictions
    from pipeline.inference.tiles import TrainedNetwork
    from pipeline.network.engines.recorded import recorded_engine
    from pipeline.network.tile_files import TileFiles
    from pipeline.runtime.device import n_workers, use_device
    from pipeline.storage.predictions import corrupted as stored
    from pipeline.storage.predictions.csv_table import HeadOutput
    from pipeline.tiles.manifest import read_manifest

    folder, out = common.run, common.run / RunFile.ROBUSTNESS
    predictions = read_predictions(folder / RunFile.PREDICTIONS, force=common.force)
    inputs = input_files(folder, predictions)
    if absent := [path for path in inputs if not path.is_file()]:
        raise BadArtifact(f"{absent[0]}: not there: restore it, or run the stage that makes it")
    artifact = records.Artifact(out, stored.SCHEMA, "robustness", plain(options), inputs, common.seed)
    record = freshness.reusable_record(artifact, restart=common.restart)
    if record is not None:
        return EXIT_SKIPPED if record["details"]["skipped"] else EXIT_OK
    model, saved = load_trained(folder, predictions)
    manifest = read_manifest(folder / RunFile.MANIFEST)
    rows = draw_rows(predictions, options.robustness_tiles, seed=common.seed)
    files = manifest.table.set_index("tile_id")
    every = predictions.rows("test")
    tested, tiles = predictions.tiles.iloc[every], predictions.tiles.iloc[rows]
    if unknown := set(tested["tile_id"]) - set(files.index):
        raise BadInput(f"{manifest.path}: tile '{min(unknown)}' of predictions.csv is not in it: run fit_heads again")
    device = use_device(common.device, common.threads, deterministic=common.deterministic)
    engine = recorded_engine(saved.embedded, model, manifest, device, workers=n_workers(common.workers))
    table = files.loc[tested["tile_id"]].assign(group=list(tested["group"]), split="test")
    chosen = np.flatnonzero(np.isin(every, rows)).tolist()
    group = predictions.tiles["group"]
    if saved.means and group.isin(set(tiles["group"])).sum() > len(rows):
        log.warning(
            "robustness: features are relative to a group, whose mean is here of the chosen test tiles alone: a part "
            "of each loss is that change"
        )

    def test_tiles(preprocess: "Preprocess") -> TileFiles:
        return TileFiles.of_table(manifest.root, table, preprocess)

    outputs, skipped = predict_corrupted(
        saved,
        TrainedNetwork(engine, model.preprocess),
        test_tiles,
        chosen,
        common,
        names=options.corruptions,
        device=device,
    )
    kept = [i for i in range(len(rows)) if i not in skipped]
    if not kept:
        raise BadInput(f"{manifest.root}: no test tile can be read; the first: {skipped[0]}")
    uncorrupted = {
        head: HeadOutput(predictions.predicted[head][rows], predictions.probabilities(head, rows))
        for head in saved.names
    }
    readable = {
        corruption: {head: HeadOutput(output.predicted[kept], output.p[kept]) for head, output in heads.items()}
        for corruption, heads in ({stored.NONE: uncorrupted} | outputs).items()
    }
    atomic.write_text(out, stored.to_csv(tiles.iloc[kept], readable, predictions.classes))
    records.write_record(
        artifact,
        details={
            "skipped": {tiles["tile_id"].iloc[i]: problem for i, problem in skipped.items()},
            "n_test": len(predictions.rows("test")),
            "engine": engine.name,
            "precision": engine.precision,
        },
        device=str(device),
    )
    log.info(
        f"robustness: {', '.join(saved.names)} on {len(kept)} test tiles under {len(outputs)} corruptions in {out}"
    )
    for i, problem in skipped.items():
        log.warning(f"robustness: skipped {tiles['tile_id'].iloc[i]}: {problem}")
    return EXIT_SKIPPED if skipped else EXIT_OK


def heads_of(predictions: "Predictions") -> list[str]:
    """Return the heads that are tested: the main heads; next to a fused head baselines on colours and texture, too.

    Their features are the same, and take longer than a small network.
    """
    has_fused = not FUSED.isdisjoint(predictions.heads)
    tested = {*MAIN, *((*COLOUR_AND_TEXTURE, "baseline_mean") if has_fused else ())}
    return [head for head in predictions.heads if head in tested]


def input_files(run: Path, predictions: "Predictions") -> list[Path]:
    """Return the files that decide the content of robustness.csv."""
    heads = [FILES[head] for head in heads_of(predictions) if head in FILES]
    others = [run / name for name in (RunFile.MANIFEST, RunFile.MODEL, RunFile.HEADS, *heads)]
    return [records.existing_table(run / RunFile.PREDICTIONS), *others]


def draw_rows(predictions: "Predictions", n: int | None, *, seed: int) -> "np.ndarray":
    """Return the rows of `Predictions.tiles` to corrupt, in their order: test rows, at most n; None: all."""
    import numpy as np

    rows = predictions.rows("test")
    if n is None or n >= len(rows):
        return rows
    return np.sort(np.random.default_rng(seed).choice(rows, n, replace=False))


def load_trained(run: Path, predictions: "Predictions") -> "tuple[Model, SavedHeads]":
    """Load the network and the heads that made predictions.csv.

    Raises:
        BadArtifact: a file is missing, damaged or not the one that fit_heads wrote.
        BadInput: the network has other classes.
        StaleInput: the heads were fitted on embeddings of another network than the run has now.
    """
    from pipeline.inference.saved_heads import EmbeddedBy, embeddings_record, load_heads, read_summary
    from pipeline.network.model_file import load_model

    summary = read_summary(run, predictions.record)
    path = run / RunFile.MODEL
    model = load_model(path)
    if model.classes != predictions.classes:
        raise BadInput(
            f"{run / RunFile.PREDICTIONS}: its classes are not those of model.safetensors: run extract again"
        )
    remedy = "run `python -m pipeline.extract` and `python -m pipeline.fit_heads` again"
    network = EmbeddedBy(atomic.sha256_file(path), str(path), remedy)
    embedded = embeddings_record(run, predictions.record, network)
    return model, load_heads(run, summary, heads_of(predictions), record=predictions.record, embedded=embedded)


def predict_corrupted(
    saved: "SavedHeads",
    network: "TrainedNetwork",
    test_tiles: "Callable[[Preprocess], TileFiles]",
    chosen: Sequence[int],
    common: Common,
    *,
    names: Sequence[str],
    device: "torch.device",
) -> "tuple[dict[str, dict[str, HeadOutput]], dict[int, str]]":
    """Return corruption -> head -> its output for N tiles, and row -> problem of the tiles that cannot be read.

    Args:
        saved: the heads.
        network: the trained one.
        test_tiles: returns all test tiles with a preprocessing; their colours are normalised by all of them.
        chosen: numbers of the N tiles to predict.
        common: workers, and the largest share of unreadable tiles.
        names: names of corruptions.
        device: runs the untrained network.

    Raises:
        BadInput: more tiles cannot be read than `--max-bad` allows; names the first.
        Interrupted: SIGINT or SIGTERM; nothing is kept.
    """
    from pipeline.inference.tiles import predict_tiles
    from pipeline.runtime.device import n_workers
    from pipeline.tiles.corruptions import CORRUPTIONS

    outputs: dict[str, dict[str, HeadOutput]] = {}
    skipped: dict[int, str] = {}
    workers = n_workers(common.workers)
    sources = test_tiles(network.preprocess).sources
    for name in names:

        def changed(preprocess: "Preprocess", name: str = name) -> "TileFiles":
            tiles = test_tiles(preprocess)
            tiles.change = CORRUPTIONS[name].apply
            return tiles.fit_colours(chosen, workers=workers).part(chosen)

        outputs[name], problems = predict_tiles(
            saved,
            network,
            changed,
            device=device,
            workers=workers,
            max_bad=common.max_bad,
            label=f"robustness {name}",
            groups=[sources[row].group for row in chosen],
        )
        skipped |= problems
    return outputs, skipped


main = Command("pipeline.robustness", __doc__, RobustnessOptions, run)
"""Entry point of `python -m pipeline.robustness`."""


if __name__ == "__main__":
    raise SystemExit(main())
