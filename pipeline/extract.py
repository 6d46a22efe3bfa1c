"""Embed every tile - train, val, test - or the tiles of slides: penultimate layer and logits of the trained network.

Reads manifest.csv and model.safetensors; writes embeddings.h5 (schema in docs/format.md). Memory does not grow with
the number of tiles. Stop or kill it at any moment: the same command continues after the last finished batch. A tile
that cannot be read keeps its row, marked in /status, and the exit code is 3.

With --shard i/K it embeds the i-th of K parts of the tiles, i counted from 1. Shards need each other neither at the
same time nor on the same machine. python -m pipeline.merge then makes one file, whose rows are those of a single run.

With --encoder a pretrained network of torchvision or timm takes the place of the trained one: it becomes
model.safetensors of the run, is not trained, and has no logits. Later commands need no --encoder. The parts of a plan
share its rows: each tile is embedded once.

Under torchrun each process embeds a shard on its own device, and the first one merges the shards.

With --slide it reads slides in place of the manifest, in the tiles of pipeline.tile (or of its defaults), and writes
slides/<slide>/<slide>.h5. One bad slide does not stop the others; slides/slides.csv lists all slides of the run.
Commands on different slides of a run can work at the same time.

    python -m pipeline.extract --run reports/mine
    python -m pipeline.extract --run reports/mine --shard 3/64
    python -m pipeline.extract --run reports/frozen --encoder torchvision:resnet50
    torchrun --nproc-per-node 8 -m -- pipeline.extract --run reports/mine
    python -m pipeline.extract --run reports/mine --slide slide.svs
"""

import contextlib
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pipeline.cli.command import Command
from pipeline.cli.fold_runs import each_part
from pipeline.cli.options import Common, check
from pipeline.cli.slide_options import SlidesOptions, chosen_slides
from pipeline.errors import BadInput, StaleInput, UsageError
from pipeline.names import TRAINED, RunFile
from pipeline.runtime.process import n_ranks, refuse_several
from pipeline.storage import atomic, freshness
from pipeline.storage.lock import locked_file
from pipeline.storage.protocol import FOLDER, read_protocol

if TYPE_CHECKING:
    from pipeline.network.extraction.run import ExtractionSettings
    from pipeline.network.extraction.tiles import TileInputs
    from pipeline.network.model_file import Model
    from pipeline.slides.find import SlideEntry
    from pipeline.tiles.manifest import Manifest

PLACES = ("manifest", "model", "out", "shard")
"""Options that name one file, which a plan with several parts cannot use."""


@dataclasses.dataclass(frozen=True)
class ExtractOptions:
    """How tiles are embedded, and where the files are."""

    encoder: str = TRAINED
    """trained: the network in the run folder. torchvision:<network> or timm:<network> (extra encoders; also
    timm:hf-hub:<repository>): a frozen, pretrained network, which needs no training."""

    weights: str = "default"
    """Weights of --encoder: default (those that the library publishes, downloaded unless they are cached), or a
    .safetensors or .pth file. A config.json of timm next to the file describes its preprocessing."""

    manifest: Path | None = None
    """Default: manifest.csv of the run."""

    model: Path | None = None
    """Default: model.safetensors of the run."""

    out: Path | None = None
    """Default: embeddings.h5 of the run; of a shard shards/embeddings-<i>-of-<K>.h5; of a slide
    slides/<slide>/<slide>.h5. For several slides a folder."""

    shard: str = ""
    """i/K, counted from 1: only the i-th of K parts of the tiles, such as 3/64. Several may run on one run folder at
    the same time, or on copies of it. Name --engine and --embed-precision where machines differ."""

    engine: Literal["auto", "torch", "compiled", "openvino"] = "auto"
    """What runs the network: torch, torch.compile (compiled), or OpenVINO (CPUs; extra cpu). auto: OpenVINO on a CPU if
    it is installed and the manifest (all shards) or the slide has 1,000 tiles or more, since getting it ready takes
    longer than it saves on fewer; else torch. Each is compared with plain fp32 on 64 tiles (16 where
    torch in fp32 on a CPU is the first choice)."""

    embed_batch: int | None = None
    """Tiles per forward pass. Default: 16 on a CPU; on a GPU 256, or a smaller power of two for tiles above 224 px."""

    embed_precision: Literal["auto", "fp32", "bf16", "int8"] = "auto"
    """auto: bf16 on a GPU, or on a CPU with AMX or AVX512-BF16, unless it does not agree with fp32; else fp32. int8:
    OpenVINO only, calibrated on training tiles."""

    views: Literal[1, 8] = 1
    """8: features and logits are means over the eight exact orientations of each tile, in all splits, at eight times
    the cost."""

    dtype: Literal["float32", "float16"] = "float32"
    """Type of the stored features; float16 halves the file."""

    def __post_init__(self) -> None:
        """Check ranges."""
        check(self.encoder != TRAINED or self.weights == "default", "--weights: give --encoder too")
        check(self.encoder == TRAINED or self.model is None, "--encoder and --model exclude one another: give one")
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
    """Slides in place of the run's tiles, and facts that their files do not hold."""

    slide: tuple[str, ...] = ()
    """Files, folders of slides, or .csv files with the columns slide and, if wanted, mpp and group."""


def check_trained_on(manifest: "Manifest", model: "Model", model_path: Path, *, force: bool) -> None:
    """Check that the model was trained on this manifest and knows its labels.

    Raises:
        BadInput: a label that the model does not know.
        StaleInput: the model was trained on another manifest, or the manifest changed since (unless `force`).
    """
    unknown = sorted(set(manifest.classes) - set(model.classes))
    if unknown:
        raise BadInput(
            f"{manifest.path}: label '{unknown[0]}' is unknown to {model_path} (it knows {', '.join(model.classes)}): "
            "train again, or correct the labels"
        )
    if force:
        return
    freshness.check_inputs_unchanged(model_path, model.record)
    if (found := atomic.sha256_file(manifest.path)) not in model.record["inputs"].values():
        raise StaleInput(
            f"{model_path} was trained on another manifest than {manifest.path} ({found[:12]}), so that its training "
            "tiles could be test tiles here: train on this manifest, or pass --force if you know that they are not"
        )


def settings_of(common: Common, options: ExtractOptions) -> "ExtractionSettings":
    """Return how tiles are embedded; sets torch's number of threads."""
    from pipeline.network.extraction.run import ExtractionSettings
    from pipeline.runtime.device import n_workers, use_device

    return ExtractionSettings(
        device=use_device(common.device, common.threads, deterministic=common.deterministic),
        workers=n_workers(common.workers),
        engine=options.engine,
        embed_precision=options.embed_precision,
        embed_batch=options.embed_batch,
        views=options.views,
        dtype=options.dtype,
        max_bad=common.max_bad,
        restart=common.restart,
        force=common.force,
    )


def run(common: Common, options: ExtractOptions) -> int:
    """Embed the tiles of the run by its network, or those of every part of a plan; return the exit code.

    Raises:
        UsageError: one file for all parts of a plan, or a shard under torchrun.
    """
    protocol = read_protocol(common.run)
    given = [name for name in PLACES if getattr(options, name)]
    if given and protocol is not None:
        raise UsageError(
            f"--{given[0]}: {common.run} is a plan, whose parts have their own files: give the --run of one part"
        )
    check(options.encoder == TRAINED or n_ranks() == 1, "--encoder: start it without torchrun, or with --shard")
    check(not options.shard or n_ranks() == 1, "--shard: start it without torchrun, which gives each process a shard")

    def work(part: Common) -> int:
        return extract(part, options)

    if n_ranks() == 1:
        return each_part(common, protocol, work, what="extract")
    from pipeline.network.distributed import process_group
    from pipeline.network.extraction.multi_process import PATIENCE

    with process_group(PATIENCE):
        return each_part(common, protocol, work, what="extract")


def extract(common: Common, options: ExtractOptions) -> int:
    """Embed the tiles of one run folder: all, a shard, or in several processes; return the exit code."""
    from pipeline.network.extraction.multi_process import extract_jointly
    from pipeline.network.extraction.tiles import extract_shard, extract_tiles
    from pipeline.storage.embeddings.shards import parse_shard

    inputs, settings = tile_inputs(common, options), settings_of(common, options)
    if options.shard:
        shard = parse_shard(options.shard)
        if options.out is None:
            atomic.check_no_link(common.run / atomic.SHARDS)
        out = options.out or common.run / atomic.SHARDS / shard.file_name
        return extract_shard(inputs, settings, out, shard)
    out = options.out or common.run / RunFile.EMBEDDINGS
    if n_ranks() > 1:
        return extract_jointly(inputs, settings, out)
    is_part = common.run.parent.name == FOLDER
    others = sorted(common.run.parent.glob(f"*/{RunFile.EMBEDDINGS}")) if is_part and options.out is None else []
    return extract_tiles(inputs, settings, out, others=others)


def tile_inputs(common: Common, options: ExtractOptions) -> "TileInputs":
    """Return manifest and network of a run folder; `--encoder` makes its network that of the run first.

    Raises:
        BadArtifact: one is missing or damaged.
        BadInput, StaleInput: as `check_trained_on`.
    """
    from pipeline.network.encoders.install import Choice, install_encoder
    from pipeline.network.extraction.tiles import TileInputs
    from pipeline.network.model_file import load_model
    from pipeline.tiles.manifest import read_manifest

    manifest = read_manifest(options.manifest or common.run / RunFile.MANIFEST)
    model_path = options.model or common.run / RunFile.MODEL
    if options.encoder != TRAINED:
        with locked_file(model_path, wait=True):  # shards may begin at the same time
            install_encoder(model_path, manifest, Choice(options.encoder, options.weights), restart=common.restart)
    model = load_model(model_path)
    check_trained_on(manifest, model, model_path, force=common.force)
    return TileInputs(manifest, model, model_path)


def run_slides(common: Common, options: ExtractOptions, slides: SlideOptions) -> int:
    """Embed the tiles of slides; return the exit code.

    Raises:
        UsageError: one file for several slides, or a manifest or a shard with slides.
    """
    from pipeline.network.extraction.slide_model import slide_model
    from pipeline.network.extraction.slides import SlideExtraction
    from pipeline.network.model_file import load_model
    from pipeline.slides.batch import each_slide
    from pipeline.slides.outcomes import Outcome
    from pipeline.slides.place import results_folder

    refuse_several("pipeline.extract --slide")
    entries, out = chosen_slides(slides.slide, slides, force=common.force), options.out
    check(options.encoder == TRAINED, "--encoder: embed the tiles of the run by it first; its slides then follow it")
    check(options.manifest is None, "--manifest lists tiles: give it without --slide")
    check(not options.shard, "--shard divides the tiles of a manifest: for slides, give each process its own --slide")
    check(
        len(entries) == 1 or out is None or out.suffix != ".h5",
        f"--out {out}: one file for {len(entries)} slides: give a folder",
    )
    extraction = SlideExtraction(common.run, settings_of(common, options))
    loaded: dict[Path, Model] = {}

    def work(entry: "SlideEntry") -> Outcome:
        trained = slide_model(common.run, entry, model=options.model)
        if trained.path not in loaded:
            loaded.clear()  # one at a time: memory
            loaded[trained.path] = load_model(trained.path)
        folder = out or results_folder(common.run, atomic.SLIDES, entry.name)
        target = folder if folder.suffix == ".h5" else folder / f"{entry.name}.h5"
        with contextlib.nullcontext() if out is None else locked_file(target):  # else the slide's folder is locked
            return extraction.extract(entry, trained, loaded[trained.path], target)

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
