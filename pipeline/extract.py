"""Embed every tile - train, val and test - by the trained network: penultimate layer and logits in one pass.

Reads manifest.csv and model.safetensors; writes embeddings.h5 (schema in data/FORMAT.md). Memory does not grow with
the number of tiles. Stop or kill it at any moment: the same command continues after the last finished batch. A tile
that cannot be read keeps its row, marked in /status, and the exit code is 3.

    python -m pipeline.extract --run reports/mine
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pipeline.cli.command import command
from pipeline.cli.options import Common, check, plain, say
from pipeline.cli.parts import each_part
from pipeline.errors import EXIT_OK, EXIT_SKIPPED, BadInput, StaleInput, UsageError
from pipeline.storage import artifacts, records
from pipeline.storage.protocol import read_protocol

if TYPE_CHECKING:
    from pipeline.network.batches import TileFiles
    from pipeline.network.engines import Engine
    from pipeline.storage.models import Model
    from pipeline.storage.scratch import Scratch
    from pipeline.tiles.manifest import Manifest


@dataclasses.dataclass(frozen=True)
class ExtractOptions:
    """How tiles are embedded, and other places for the files."""

    manifest: Path | None = None
    """Default: manifest.csv of the run."""

    model: Path | None = None
    """Default: model.safetensors of the run."""

    out: Path | None = None
    """Default: embeddings.h5 of the run."""

    engine: Literal["auto", "torch", "compiled", "openvino"] = "auto"
    """What runs the network: torch itself, torch.compile, or OpenVINO (CPUs; extra cpu). auto: the fastest of them by a
    clear margin, timed on a few tiles. Each must agree with plain fp32 on them, or --force."""

    embed_batch: int | None = None
    """Tiles per forward pass; default: 16 on a CPU, whose cache small batches stay in, 256 on a GPU."""

    embed_precision: Literal["auto", "fp32", "bf16", "int8"] = "auto"
    """auto: bf16 where the device is faster by it. int8: openvino alone, calibrated on training tiles."""

    views: Literal[1, 8] = 1
    """8: features and logits are means over the eight exact orientations of each tile, of all splits alike, at eight
    times the cost."""

    dtype: Literal["float32", "float16"] = "float32"
    """How features are stored; float16 halves the file."""

    def __post_init__(self) -> None:
        """Check ranges."""
        check(self.embed_batch is None or 1 <= self.embed_batch <= 8192, f"--embed-batch {self.embed_batch}: 1 to 8192")
        check(
            self.embed_precision != "int8" or self.engine in ("auto", "openvino"),
            f"--embed-precision int8 --engine {self.engine}: only openvino computes in int8",
        )


def check_same_ground(manifest: "Manifest", model: "Model", model_path: Path, *, force: bool) -> None:
    """Refuse tiles that the model cannot have learnt from: other classes, or another manifest than its own.

    Raises:
        BadInput: a label that the model does not know.
        StaleInput: the manifest changed since the training (unless `force`).
    """
    unknown = sorted(set(manifest.classes) - set(model.classes))
    if unknown:
        raise BadInput(
            f"{manifest.path}: label '{unknown[0]}' is unknown to {model_path} (it knows {', '.join(model.classes)}): "
            "train anew, or correct the labels"
        )
    if force:
        return
    records.check_fresh(model_path, model.record)
    if (found := artifacts.sha256_file(manifest.path)) not in model.record["inputs"].values():
        raise StaleInput(
            f"{model_path} was trained on another manifest than {manifest.path} ({found[:12]}), so that tiles it was "
            "trained on could stand in test here: train on this manifest, or pass --force if you know they do not"
        )


def run(common: Common, options: ExtractOptions) -> int:
    """Embed the tiles of the run by its network, or by that of every part of a plan; return the exit code.

    Raises:
        UsageError: one file for all parts of a plan.
    """
    given = [name for name in ("manifest", "model", "out") if getattr(options, name) is not None]
    if given and read_protocol(common.run) is not None:
        raise UsageError(
            f"--{given[0]}: {common.run} is a plan, whose parts have files of their own: give a part's --run"
        )
    return each_part(common, lambda place: extract(place, options), what="extract")


def extract(common: Common, options: ExtractOptions) -> int:
    """Embed all tiles, or continue, or do nothing if the file is current; return the exit code."""
    from pipeline.storage.embeddings import SCHEMA
    from pipeline.storage.models import load_model
    from pipeline.tiles.manifest import read_manifest

    out = options.out or common.run / "embeddings.h5"
    manifest = read_manifest(options.manifest or common.run / "manifest.csv")
    model_path = options.model or common.run / "model.safetensors"
    model = load_model(model_path)
    check_same_ground(manifest, model, model_path, force=common.force)
    chosen = {
        name: value for name, value in plain(options).items() if name not in ("manifest", "model", "out")
    }  # where files lie is not what they hold
    inputs = [manifest.path, model_path]
    if not common.restart and records.is_current(out, schema=SCHEMA, options=chosen, inputs=inputs, seed=None):
        skipped = records.read_record(out)["details"]["skipped"]
        say(f"extract: current, {out}")
        return EXIT_SKIPPED if skipped else EXIT_OK
    if not common.restart:
        records.refuse_other_options(out, options=chosen, seed=None)
    return embed(manifest, model, common, options, out=out, chosen=chosen, inputs=inputs)


def embed(
    manifest: "Manifest",
    model: "Model",
    common: Common,
    options: ExtractOptions,
    *,
    out: Path,
    chosen: dict[str, Any],
    inputs: list[Path],
) -> int:
    """Compute the rows that are missing, build the HDF5 file and its record."""
    from pipeline.cli.machine import n_workers, use_device
    from pipeline.network.batches import TileFiles
    from pipeline.network.engines import default_batch
    from pipeline.network.engines.settling import SETTLED, settle_engine
    from pipeline.storage.embeddings import SCHEMA, write_embeddings
    from pipeline.storage.scratch import Scratch, row_type

    table = manifest.table
    device = use_device(common.device, common.threads, deterministic=common.deterministic)
    tiles = TileFiles(manifest.root, list(table["path"]), list(table["sha256"]), model.preprocess.size)
    hashes = {path.name: artifacts.sha256_file(path) for path in inputs}
    batch = options.embed_batch or default_batch(device)
    scratch = Scratch(
        out,
        row=row_type(model.network.fc.in_features, len(model.classes)),
        identity={"inputs": hashes, "options": chosen, "device": device.type, "batch": batch},
        batch=batch,
    )
    engine = settle_engine(
        scratch,
        model,
        manifest,
        tiles,
        asked=(options.engine, options.embed_precision),
        device=device,
        restart=common.restart,
        force=common.force,
    )
    there = scratch.path.stat().st_size if scratch.path.is_file() else 0
    artifacts.require_space(out.parent, len(table) * scratch.row.itemsize * 2 - there)
    skipped = fill(scratch, engine, tiles, common, workers=n_workers(common.workers))
    skipped = {row: table["problem"].iloc[row] or problem for row, problem in skipped.items()}
    write_embeddings(
        out,
        scratch,
        table,
        attrs={
            "classes": model.classes,
            "preprocess": dataclasses.asdict(model.preprocess),
            "model_sha256": hashes[inputs[1].name],
            "manifest_sha256": hashes[inputs[0].name],
            "versions": records.versions() | dict(engine.versions),
            "engine": engine.name,
            "precision": engine.precision,
            "views": engine.views,
        },
        dtype=options.dtype,
    )
    records.write_record(
        out,
        schema=SCHEMA,
        stage="extract",
        options=chosen,
        inputs=inputs,
        details={
            "skipped": {table["tile_id"].iloc[row]: problem for row, problem in skipped.items()},
            **{name: scratch.identity[name] for name in ("batch", *SETTLED)},
            "per_pass": engine.per_pass,
            "dataset": manifest.details["dataset"],
            "protocol": manifest.details["protocol"],
            "credit": manifest.details.get("credit"),
        },
        device=str(device),
    )
    scratch.remove()
    say(f"extract: {len(table)} rows of {model.network.fc.in_features} features in {out}")
    for row, problem in skipped.items():
        say(f"extract: skipped {table['tile_id'].iloc[row]}: {problem}")
    return EXIT_SKIPPED if skipped else EXIT_OK


def status_of(problem: str) -> int:
    """Return the code for /status of what `TileFiles` says of a tile."""
    from pipeline.network.batches import CHANGED_PIXELS
    from pipeline.storage.embeddings import CHANGED, OK, UNREADABLE

    if not problem:
        return OK
    return CHANGED if problem.endswith(CHANGED_PIXELS) else UNREADABLE


def look_again(scratch: "Scratch", tiles: "TileFiles") -> tuple[int, dict[int, str]]:
    """Read the tiles again that an earlier run could not use; rows from the first other outcome on are cut off.

    Returns:
        The number of rows that stand, and row -> problem for those among them without features.
    """
    import numpy as np

    from pipeline.storage.embeddings import OK

    start, skipped = 0, dict[int, str]()
    for block in scratch.blocks():
        for offset in np.flatnonzero(block["status"] != OK):
            row = start + int(offset)
            _, _, _, problem = tiles[row]
            if status_of(problem) != block["status"][offset]:
                kept = scratch.cut(row)
                return kept, {row: problem for row, problem in skipped.items() if row < kept}
            skipped[row] = problem
        start += len(block)
    return start, skipped


def check_share(skipped: dict[int, str], tiles: "TileFiles", max_bad: float) -> None:
    """Stop when more tiles cannot be used than `max_bad` allows.

    Raises:
        BadInput: names the first of them.
    """
    if len(skipped) > max_bad * len(tiles):
        raise BadInput(
            f"{tiles.root}: {len(skipped)} of {len(tiles)} tiles or more cannot be used, above --max-bad {max_bad:g} "
            f"(the rows so far are kept); the first: {skipped[min(skipped)]}"
        )


def fill(scratch: "Scratch", engine: "Engine", tiles: "TileFiles", common: Common, *, workers: int) -> dict[int, str]:
    """Append the missing rows to the scratch, which is open; return row -> problem of the tiles that could not be used.

    Raises:
        Interrupted: SIGINT or SIGTERM; the rows so far are kept.
        BadInput: too many tiles cannot be used; the rows so far are kept.
        WorkerLost: a process that decodes tiles died; likewise.
    """
    import numpy as np

    from pipeline.cli.progress import progress
    from pipeline.cli.signals import StopRequest
    from pipeline.network.embedding import embed_batches

    done, skipped = look_again(scratch, tiles)
    if done:
        say(f"extract: continuing after row {done} of {len(tiles)}")
    check_share(skipped, tiles, common.max_bad)
    with StopRequest() as stop, progress(len(tiles), unit="tile", label="extract", done=done) as bar:
        for batch, features, logits in embed_batches(engine, tiles, first=done, workers=workers):
            rows = np.zeros(len(batch.rows), scratch.row)
            rows["features"], rows["logits"], rows["sha256"] = features, logits, batch.sha256
            for i, problem in enumerate(batch.problems):
                rows["status"][i] = status_of(problem)
                if problem:
                    skipped[batch.rows[i]] = problem
            scratch.append(rows)
            bar.update(len(rows))
            check_share(skipped, tiles, common.max_bad)
            if stop.signum:
                raise stop.interrupted(f"{batch.rows[-1] + 1} of {len(tiles)} rows are kept")
    return skipped


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `python -m pipeline.extract`."""
    stages = {"extract": ExtractOptions}
    return command("pipeline.extract", __doc__, stages, lambda common, o: run(common, o["extract"]), argv)


if __name__ == "__main__":
    raise SystemExit(main())
