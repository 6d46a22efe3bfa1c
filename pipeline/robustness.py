"""Put the heads through fixed corruptions of the test tiles: colours, stain, light, blur, JPEG, resolution, rotation.

Each corruption is applied to a tile's own pixels, which then go through the trained network once, so that all heads
answer to the same pixels. Test rows are only predicted. Reads predictions.csv, the tiles, the model and heads/; writes
robustness.csv. A run that is stopped keeps nothing of it and starts anew. Of a plan, the parts are pooled.

    python -m pipeline.robustness --run reports/mine
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from pipeline.cli.command import Command
from pipeline.cli.fold_runs import each_part
from pipeline.cli.options import Common, check, plain
from pipeline.errors import EXIT_OK, EXIT_SKIPPED, BadArtifact, BadInput
from pipeline.names import FILES, SUMMARY
from pipeline.runtime.console import log
from pipeline.storage import atomic, freshness, records
from pipeline.storage.protocol import read_protocol

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from pipeline.comparison.predictions import Predictions
    from pipeline.heads.saved import SavedHeads
    from pipeline.network.engines import Engine
    from pipeline.network.model_file import Model, Preprocess
    from pipeline.storage.predictions.csv_table import HeadOutput
    from pipeline.storage.protocol import Protocol

Name = Literal["colour_shift", "stain_change", "brightness", "blur", "jpeg", "half_resolution", "rotation"]


@dataclasses.dataclass(frozen=True)
class RobustnessOptions:
    """Which corruptions, and on how many tiles."""

    corruptions: tuple[Name, ...] = get_args(Name)
    """What the test tiles are put through."""

    robustness_tiles: int | None = None
    """Test tiles at most, drawn at random by --seed; default: all."""

    def __post_init__(self) -> None:
        """Check ranges."""
        names = " ".join(self.corruptions)
        check(self.corruptions, "--corruptions: at least one is needed")
        check(len(set(self.corruptions)) == len(self.corruptions), f"--corruptions {names}: one is named twice")
        check(
            self.robustness_tiles is None or self.robustness_tiles >= 1,
            f"--robustness-tiles {self.robustness_tiles}: at least 1",
        )


def draw_rows(predictions: "Predictions", n: int | None, *, seed: int) -> "np.ndarray":
    """Return the rows of `Predictions.tiles` to put under robustness, in their order: test rows, at most n of them."""
    import numpy as np

    rows = predictions.rows("test")
    if n is None or n >= len(rows):
        return rows
    return np.sort(np.random.default_rng(seed).choice(rows, n, replace=False))


def input_files(run: Path, predictions: "Predictions") -> list[Path]:
    """Return what decides the content of robustness.csv."""
    heads = [FILES[head] for head in predictions.main_heads if head in FILES]
    others = [run / name for name in ("manifest.csv", "model.safetensors", SUMMARY, *heads)]
    return [records.standing(run / "predictions.csv"), *others]


def load_trained(run: Path, predictions: "Predictions") -> "tuple[Model, SavedHeads]":
    """Load the network and the heads that made predictions.csv.

    Raises:
        BadArtifact: a file is missing, damaged or not the one that fit_heads wrote.
        BadInput: the network has other classes.
        StaleInput: the heads were given embeddings of another network than stands there.
    """
    from pipeline.heads.saved import EmbeddedBy, embeddings_record, load_heads, read_summary
    from pipeline.network.model_file import load_model

    summary = read_summary(run, predictions.record)
    path = run / "model.safetensors"
    model = load_model(path)
    if model.classes != predictions.classes:
        raise BadInput(f"{run / 'predictions.csv'}: its classes are not those of model.safetensors: run extract again")
    remedy = "run `python -m pipeline.extract` and `python -m pipeline.fit_heads` again"
    network = EmbeddedBy(atomic.sha256_file(path), str(path), remedy)
    embedded = embeddings_record(run, predictions.record, network)
    return model, load_heads(run, summary, predictions.main_heads, embedded=embedded)


def run(common: Common, options: RobustnessOptions) -> int:
    """Test the heads of the run, or those of its plan part by part, on corrupted tiles; return the exit code."""
    return run_parts(common, read_protocol(common.run), options)


def run_parts(common: Common, protocol: "Protocol | None", options: RobustnessOptions) -> int:
    """Do the work of `run` for a plan that was read; None: a single split."""
    if protocol is None:
        return put(common, options)
    random_controls = {protocol.folder(part) for part in protocol.parts if part.arm != protocol.main_arm}

    def part(place: Common) -> int:
        return EXIT_OK if place.run in random_controls else put(place, options)

    code = each_part(common, protocol, part, what="robustness")
    pool_parts(protocol, options)
    return code


def pool_parts(protocol: "Protocol", options: RobustnessOptions) -> None:
    """Write the robustness.csv of a plan's main arm unless it is current."""
    from pipeline.storage.predictions import corrupted as stored

    parts = [part for part in protocol.parts if part.arm == protocol.main_arm]
    files = [protocol.folder(part) / "robustness.csv" for part in parts]
    out = protocol.run / "robustness.csv"
    artifact = records.Artifact(out, stored.SCHEMA, "robustness", plain(options), files, protocol.seeds[0])
    if freshness.reusable_record(artifact) is not None:
        return
    atomic.write_text(out, stored.pool([(part.seed, part.fold, path) for part, path in zip(parts, files, strict=True)]))
    records.write_record(artifact, details={"n_parts": len(parts)})
    log.info(f"robustness: pooled {len(parts)} parts in {out}")


def put(common: Common, options: RobustnessOptions) -> int:
    """Predict the corrupted test tiles, or do nothing if robustness.csv is current; return the exit code."""
    from pipeline.comparison.read import read_predictions
    from pipeline.network.engines.recorded import recorded_engine
    from pipeline.runtime.device import use_device
    from pipeline.storage.predictions import corrupted as stored
    from pipeline.storage.predictions.csv_table import HeadOutput
    from pipeline.tiles.manifest import read_manifest

    folder, out = common.run, common.run / "robustness.csv"
    predictions = read_predictions(folder / "predictions.csv", force=common.force)
    inputs = input_files(folder, predictions)
    if absent := [path for path in inputs if not path.is_file()]:
        raise BadArtifact(f"{absent[0]}: not there: restore it, or run the stage that makes it")
    artifact = records.Artifact(out, stored.SCHEMA, "robustness", plain(options), inputs, common.seed)
    record = freshness.reusable_record(artifact, restart=common.restart)
    if record is not None:
        return EXIT_SKIPPED if record["details"]["skipped"] else EXIT_OK
    model, saved = load_trained(folder, predictions)
    manifest = read_manifest(folder / "manifest.csv")
    rows = draw_rows(predictions, options.robustness_tiles, seed=common.seed)
    files = manifest.table.set_index("tile_id")
    tiles = predictions.tiles.iloc[rows]
    if unknown := set(tiles["tile_id"]) - set(files.index):
        raise BadInput(f"{manifest.path}: tile '{min(unknown)}' of predictions.csv is not in it: run fit_heads again")
    device = use_device(common.device, common.threads, deterministic=common.deterministic)
    engine = recorded_engine(saved.embedded, model, manifest, device)
    answers, skipped = put_through(
        saved,
        engine,
        files.loc[tiles["tile_id"]],
        common,
        names=list(options.corruptions),
        root=manifest.root,
        preprocess=model.preprocess,
    )
    kept = [i for i in range(len(rows)) if i not in skipped]
    if not kept:
        raise BadInput(f"{manifest.root}: no test tile can be read; the first: {skipped[0]}")
    as_they_are = {
        head: HeadOutput(predictions.predicted[head][rows], predictions.probabilities(head, rows))
        for head in saved.heads
    }
    answered = {
        corruption: {head: HeadOutput(answer.predicted[kept], answer.p[kept]) for head, answer in heads.items()}
        for corruption, heads in ({stored.NONE: as_they_are} | answers).items()
    }
    atomic.write_text(out, stored.to_csv(tiles.iloc[kept], answered, predictions.classes))
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
        f"robustness: {', '.join(saved.heads)} on {len(kept)} test tiles under {len(answers)} corruptions in {out}"
    )
    for i, problem in skipped.items():
        log.info(f"robustness: skipped {tiles['tile_id'].iloc[i]}: {problem}")
    return EXIT_SKIPPED if skipped else EXIT_OK


def put_through(
    saved: "SavedHeads",
    engine: "Engine",
    files: "pd.DataFrame",
    common: Common,
    *,
    names: Sequence[str],
    root: Path,
    preprocess: "Preprocess",
) -> "tuple[dict[str, dict[str, HeadOutput]], dict[int, str]]":
    """Return corruption -> head -> what it says of N tiles, and row -> problem of tiles that cannot be read.

    Args:
        saved: the heads.
        engine: the network, ready to run.
        files: path and sha256 of N tiles.
        common: workers and the share of bad tiles allowed.
        names: of corruptions.
        root: folder that the paths are relative to.
        preprocess: size and stain of the network's input; corruptions come before both.

    Raises:
        BadInput: more tiles cannot be read than `--max-bad` allows; names the first.
        Interrupted: SIGINT or SIGTERM; nothing is kept.
    """
    from pipeline.inference.tiles import predict_tiles
    from pipeline.network.batches import TileFiles
    from pipeline.runtime.device import n_workers
    from pipeline.runtime.progress import progress
    from pipeline.runtime.signals import StopRequest
    from pipeline.tiles.corruptions import CORRUPTIONS

    answers: dict[str, dict[str, HeadOutput]] = {}
    skipped: dict[int, str] = {}
    with StopRequest() as stop, progress(len(names) * len(files), unit="tile", label="robustness") as bar:
        for name in names:
            bar.set_postfix_str(name)
            answers[name], problems = predict_tiles(
                saved,
                engine,
                TileFiles(
                    root,
                    list(files["path"]),
                    list(files["sha256"]),
                    preprocess.size,
                    change=CORRUPTIONS[name].apply,
                    stain=preprocess.stain,
                ),
                workers=n_workers(common.workers),
                max_bad=common.max_bad,
                stop=stop,
                lost="robustness.csv was not finished and begins anew",
                advance=bar.update,
            )
            skipped |= problems
    return answers, skipped


main = Command("pipeline.robustness", __doc__, RobustnessOptions, run)
"""Entry point of `python -m pipeline.robustness`."""


if __name__ == "__main__":
    raise SystemExit(main())
