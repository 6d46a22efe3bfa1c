"""Embed every tile - train, val, test - or those of slides by the trained network: penultimate layer and logits.

Reads manifest.csv and model.safetensors; writes embeddings.h5 (schema in docs/format.md). Memory does not grow with
the number of tiles. Stop or kill it at any moment: the same command continues after the last finished batch. A tile
that cannot be read keeps its row, marked in /status, and the exit code is 3.

With --shard i/K it embeds the i-th of K parts of the tiles, i counted from 1, apart from the others: on any machine, in
any order. Then python -m pipeline.merge makes one file of them, whose rows are those of a single run.

Under torchrun each process embeds a part on a device of its own, and the first one puts the parts together.

With --slide it reads slides in place of the manifest, cut as pipeline.tile cut them (or by its defaults), and writes
slides/<slide>/<slide>.h5. One bad slide does not stop the others; slides/slides.csv lists all slides of the run.
Commands on different slides of a run can work at the same time.

    python -m pipeline.extract --run reports/mine
    python -m pipeline.extract --run reports/mine --shard 3/64
    torchrun --nproc-per-node 8 -m -- pipeline.extract --run reports/mine
    python -m pipeline.extract --run reports/mine --slide slide.svs
"""

import contextlib
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pipeline.cli.command import Command
from pipeline.cli.fold_runs import each_part
from pipeline.cli.options import Common, check, plain
from pipeline.cli.slide_options import SlidesOptions, chosen_slides
from pipeline.errors import BadInput, StaleInput, UsageError
from pipeline.runtime.process import n_ranks, refuse_several
from pipeline.storage import atomic, freshness
from pipeline.storage.lock import locked_file
from pipeline.storage.protocol import read_protocol

if TYPE_CHECKING:
    from pipeline.network.extraction.tiles import TileExtraction
    from pipeline.network.model_file import Model
    from pipeline.slides.find import SlideEntry
    from pipeline.tiles.manifest import Manifest

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
        if self.shard:
            from pipeline.storage.embeddings.shards import parse_shard

            parse_shard(self.shard)


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
    freshness.check_inputs_unchanged(model_path, model.record)
    if (found := atomic.sha256_file(manifest.path)) not in model.record["inputs"].values():
        raise StaleInput(
            f"{model_path} was trained on another manifest than {manifest.path} ({found[:12]}), so that tiles it was "
            "trained on could stand in test here: train on this manifest, or pass --force if you know they do not"
        )


def run(common: Common, options: ExtractOptions) -> int:
    """Embed the tiles of the run by its network, or by that of every part of a plan; return the exit code.

    Raises:
        UsageError: one file for all parts of a plan.
    """
    protocol = read_protocol(common.run)
    given = [name for name in (*PLACES, "shard") if getattr(options, name)]
    if given and protocol is not None:
        raise UsageError(
            f"--{given[0]}: {common.run} is a plan, whose parts have files of their own: give a part's --run"
        )
    if not options.shard and n_ranks() > 1:
        from pipeline.network.distributed import process_group
        from pipeline.network.extraction.multi_process import PATIENCE, extract_jointly

        with process_group(PATIENCE):
            return each_part(common, protocol, lambda place: extract_jointly(*ground(place, options)), what="extract")
    return each_part(common, protocol, lambda place: extract(place, options), what="extract")


def extract(common: Common, options: ExtractOptions) -> int:
    """Embed the tiles of a run, or a shard of them, in this process; return the exit code.

    Raises:
        UsageError: a shard that is named under torchrun.
    """
    from pipeline.network.extraction.tiles import extract_shard, extract_tiles

    if not options.shard:
        return extract_tiles(*ground(common, options))
    check(n_ranks() == 1, "--shard is for a process by itself; of torchrun, each process takes a shard unasked")
    return extract_shard(*ground(common, options))


def ground(common: Common, options: ExtractOptions) -> "tuple[TileExtraction, Path]":
    """Return what is embedded, after a look whether model and manifest belong together, and the file it goes to.

    Raises:
        BadArtifact: one is missing or damaged.
        BadInput, StaleInput: as `check_same_ground`.
    """
    from pipeline.network.extraction.tiles import TileExtraction
    from pipeline.network.model_file import load_model
    from pipeline.storage.embeddings.shards import parse_shard
    from pipeline.tiles.manifest import read_manifest

    out = common.run / "embeddings.h5"
    if options.shard and options.out is None:
        atomic.refuse_link(common.run / atomic.SHARDS)
        out = common.run / atomic.SHARDS / parse_shard(options.shard).file_name
    manifest = read_manifest(options.manifest or common.run / "manifest.csv")
    model_path = options.model or common.run / "model.safetensors"
    model = load_model(model_path)
    check_same_ground(manifest, model, model_path, force=common.force)
    work = TileExtraction(common, manifest, model, (manifest.path, model_path), of_rows(options))
    return work, options.out or out


def run_slides(common: Common, options: ExtractOptions, slides: SlideOptions) -> int:
    """Embed the tiles of slides; return the exit code.

    Raises:
        UsageError: one file for several slides, or a manifest beside them.
    """
    from pipeline.network.engines import default_batch
    from pipeline.network.extraction.slide_model import slide_model
    from pipeline.network.extraction.slides import SlideExtraction
    from pipeline.network.model_file import load_model
    from pipeline.runtime.device import use_device
    from pipeline.slides.batch import each_slide
    from pipeline.slides.outcomes import Outcome
    from pipeline.slides.place import results_folder

    refuse_several("pipeline.extract --slide")
    entries, out = chosen_slides(slides.slide, slides, force=common.force), options.out
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

    def work(entry: "SlideEntry") -> Outcome:
        trained = slide_model(common.run, entry, model=options.model)
        if trained.path not in loaded:
            loaded.clear()  # one at a time: memory
            loaded[trained.path] = load_model(trained.path)
        folder = out or results_folder(common.run, atomic.SLIDES, entry.name)
        place = folder if folder.suffix == ".h5" else folder / f"{entry.name}.h5"
        with contextlib.nullcontext() if out is None else locked_file(place):  # else the slide's folder is locked
            return extraction.run(entry, trained, loaded[trained.path], place)

    return each_slide(common.run, entries, work, stage="extract")


@dataclasses.dataclass(frozen=True)
class ExtractCommandOptions:
    """Options of the command by stage."""

    extract: ExtractOptions
    slides: SlideOptions


def run_tiles_or_slides(common: Common, given: ExtractCommandOptions) -> int:
    """Embed slides if some are named, else the tiles of the run; return the exit code."""
    if given.slides.slide or given.slides.data:
        return run_slides(common, given.extract, given.slides)
    return run(common, given.extract)


main = Command(
    "pipeline.extract",
    __doc__,
    ExtractCommandOptions,
    run_tiles_or_slides,
    shares=lambda given: bool(given.extract.shard or given.slides.slide or given.slides.data),
    together=True,
)
"""Entry point of `python -m pipeline.extract`."""


if __name__ == "__main__":
    raise SystemExit(main())
