"""Embed every tile - train, val, test - or those of slides by the trained network: penultimate layer and logits.

Reads manifest.csv and model.safetensors; writes embeddings.h5 (schema in data/FORMAT.md). Memory does not grow with
the number of tiles. Stop or kill it at any moment: the same command continues after the last finished batch. A tile
that cannot be read keeps its row, marked in /status, and the exit code is 3.

With --shard i/K it embeds the i-th of K parts of the tiles, i counted from 1, apart from the others: on any machine, in
any order. Then python -m pipeline.merge makes one file of them, whose rows are those of a single run.

With --slide it reads slides in place of the manifest, cut as pipeline.tile cut them (or by its defaults), and writes
slides/<slide>/<slide>.h5. One bad slide does not stop the others; slides/slides.csv says what became of each.

    python -m pipeline.extract --run reports/mine
    python -m pipeline.extract --run reports/mine --shard 3/64
    python -m pipeline.extract --run reports/mine --slide slide.svs
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pipeline.cli.command import command
from pipeline.cli.options import Common, check, plain, say
from pipeline.cli.parts import each_part
from pipeline.cli.slides import Outcome, SlidesOptions, chosen_slides, each_slide
from pipeline.errors import EXIT_OK, EXIT_SKIPPED, BadInput, StaleInput, UsageError
from pipeline.storage import artifacts, records
from pipeline.storage.lock import locked_file
from pipeline.storage.protocol import read_protocol

if TYPE_CHECKING:
    import pandas as pd

    from pipeline.storage.models import Model
    from pipeline.storage.shards import Shard
    from pipeline.tiles.manifest import Manifest
    from pipeline.tiles.slide_list import SlideEntry

PLACES = ("manifest", "model", "out")
"""Options that say where files lie, not what the rows are."""


def of_rows(options: "ExtractOptions") -> dict[str, Any]:
    """Return the options that decide the rows; `shard` is one of them where it is given."""
    given = plain(options)
    return {name: given[name] for name in given if name not in PLACES and (name != "shard" or given[name])}


@dataclasses.dataclass(frozen=True)
class ExtractOptions:
    """How tiles are embedded, and other places for the files."""

    manifest: Path | None = None
    """Default: manifest.csv of the run."""

    model: Path | None = None
    """Default: model.safetensors of the run."""

    out: Path | None = None
    """Default: embeddings.h5 of the run; of a shard shards/embeddings-<i>-of-<K>.h5; of a slide
    slides/<slide>/<slide>.h5. For several slides a folder."""

    shard: str = ""
    """i/K, counted from 1: only the i-th of K parts of the tiles, such as 3/64. Several may run on one run folder at
    the same time, or on copies of it; name --engine and --embed-precision where machines differ."""

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
        self.part()

    def part(self) -> "Shard | None":
        """Return the shard that is asked for."""
        from pipeline.storage.shards import parse_shard

        return parse_shard(self.shard) if self.shard else None


@dataclasses.dataclass(frozen=True)
class SlideOptions(SlidesOptions):
    """Slides in place of the run's tiles, and what their files do not tell."""

    slide: tuple[str, ...] = ()
    """Files, folders of slides, or .csv files with the columns slide and, if wanted, mpp and group."""


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
    given = [name for name in (*PLACES, "shard") if getattr(options, name)]
    if given and read_protocol(common.run) is not None:
        raise UsageError(
            f"--{given[0]}: {common.run} is a plan, whose parts have files of their own: give a part's --run"
        )
    if (shard := options.part()) is not None:
        from pipeline.storage.shards import shard_path

        out = options.out or shard_path(common.run, shard)
        if options.out is None:
            artifacts.refuse_link(out.parent)
        with locked_file(out):
            artifacts.remove_temporaries_of(out)
            return extract(common, dataclasses.replace(options, out=out))
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
    chosen = of_rows(options)
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
    from pipeline.network.engines.settling import SETTLED, settle_engine, settled_beside
    from pipeline.network.filling import attributes, fill
    from pipeline.storage.embeddings import SCHEMA, write_embeddings
    from pipeline.storage.scratch import Scratch, row_type
    from pipeline.storage.shards import ShardRows

    def files(table: "pd.DataFrame") -> TileFiles:
        return TileFiles(manifest.root, list(table["path"]), list(table["sha256"]), model.preprocess.size)

    shard, n_tiles = options.part(), len(manifest.table)
    device = use_device(common.device, common.threads, deterministic=common.deterministic)
    batch = options.embed_batch or default_batch(device)
    own = range(n_tiles) if shard is None else shard.rows(n_tiles, batch)
    table = manifest.table.iloc[own.start : own.stop]
    tiles = files(table)
    hashes = {path.name: artifacts.sha256_file(path) for path in inputs}
    scratch = Scratch(
        out,
        row=row_type(model.network.fc.in_features, len(model.classes)),
        identity={"inputs": hashes, "options": chosen, "device": device.type, "batch": batch},
        batch=batch,
    )
    asked: tuple[str, str] = options.engine, options.embed_precision
    if shard is not None and "auto" in asked:
        asked = settled_beside(scratch, out, shard) or asked
    engine = settle_engine(
        scratch,
        model,
        manifest,
        files(manifest.table),  # every shard tries engines on the same tiles as a single run
        asked=asked,
        device=device,
        restart=common.restart,
        force=common.force,
        n_tiles=len(table),
    )
    there = scratch.path.stat().st_size if scratch.path.is_file() else 0
    artifacts.require_space(out.parent, len(table) * scratch.row.itemsize * 2 - there)
    skipped = fill(scratch, engine, tiles, common, workers=n_workers(common.workers), of=n_tiles)
    skipped = {row: table["problem"].iloc[row] or problem for row, problem in skipped.items()}
    attrs = attributes(model, engine, model_sha256=hashes[inputs[1].name], manifest_sha256=hashes[inputs[0].name])
    if shard is not None:
        attrs |= {"shard": ShardRows(shard, own.start, n_tiles).attribute()}
    write_embeddings(out, scratch, table, attrs=attrs, dtype=options.dtype)
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


def run_slides(common: Common, options: ExtractOptions, slides: SlideOptions) -> int:
    """Embed the tiles of slides; return the exit code.

    Raises:
        UsageError: one file for several slides, or a manifest beside them.
    """
    from pipeline.cli.machine import use_device
    from pipeline.network.engines import default_batch
    from pipeline.network.slide_extraction import SlideExtraction, write_outcomes
    from pipeline.network.slide_model import slide_model
    from pipeline.storage.models import load_model
    from pipeline.tiles.grid import grid_path

    entries, out = chosen_slides(slides.slide, slides), options.out
    check(options.manifest is None, "--manifest lists tiles: give it without --slide")
    check(not options.shard, "--shard parts the tiles of a manifest: of slides, give each process its own --slide")
    check(
        len(entries) == 1 or out is None or out.suffix != ".h5",
        f"--out {out}: one file for {len(entries)} slides: give a folder",
    )
    device = use_device(common.device, common.threads, deterministic=common.deterministic)
    extraction = SlideExtraction(
        common,
        of_rows(options),
        device,
        options.embed_batch or default_batch(device),
        (options.engine, options.embed_precision),
        len(entries),
    )
    loaded: dict[Path, Model] = {}
    used: set[Path] = set()

    def work(entry: "SlideEntry") -> Outcome:
        trained = slide_model(common.run, entry, model=options.model)
        if trained.path not in loaded:
            loaded.clear()  # one at a time: memory
            loaded[trained.path] = load_model(trained.path)
            used.add(trained.path)
        folder = out or grid_path(common.run, entry.name).parent
        place = folder if folder.suffix == ".h5" else folder / f"{entry.name}.h5"
        return extraction.run(entry, trained, loaded[trained.path], place)

    code, outcomes = each_slide(entries, work, what="extract")
    write_outcomes(common.run / artifacts.SLIDES / "slides.csv", outcomes, inputs=sorted(used))
    return code


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `python -m pipeline.extract`."""

    def work(common: Common, given: dict[str, Any]) -> int:
        options, slides = given["extract"], given["slides"]
        return run_slides(common, options, slides) if slides.slide or slides.data else run(common, options)

    stages = {"extract": ExtractOptions, "slides": SlideOptions}
    return command("pipeline.extract", __doc__, stages, work, argv, shares=lambda given: bool(given["extract"].shard))


if __name__ == "__main__":
    raise SystemExit(main())
