"""Embed the tiles of one job into an HDF5 file: the one routine for a manifest, a shard of it, and a slide."""

import dataclasses
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import torch

from pipeline.errors import UsageError
from pipeline.network.engines import Engine, EngineRequest, default_batch, select_engine
from pipeline.network.engines.samples import calibration_pixels, fingerprint
from pipeline.network.extraction.resumable_rows import embed_missing_rows
from pipeline.network.model_file import Model
from pipeline.network.tile_files import TileSource, log_colours
from pipeline.runtime.console import log
from pipeline.storage import atomic, environment, records
from pipeline.storage.embeddings.partial_rows import PartialRows, header_path, row_type
from pipeline.storage.embeddings.reader import SCHEMA
from pipeline.storage.embeddings.shards import ShardRows
from pipeline.storage.embeddings.slide_info import SlideInfo
from pipeline.storage.embeddings.writer import write_embeddings
from pipeline.tiles.manifest import Manifest

MOST_THREADS = 4096
"""More threads are not believed of the header of unfinished rows."""

Engines = dict[tuple[str, str], Engine]
"""Engines that were built for one model, device and batch, by name and precision."""


@dataclasses.dataclass(frozen=True)
class ExtractionSettings:
    """How tiles are embedded: the command's options as plain values."""

    device: torch.device
    workers: int
    """Processes that decode tiles."""

    engine: str
    embed_precision: str
    embed_batch: int | None
    """None: `default_batch`."""

    views: int
    """1 or 8 orientations, of which each row is the mean."""

    dtype: str
    """Type of the stored features: float32 or float16."""

    max_bad: float
    """Largest share of tiles that cannot be used."""

    restart: bool
    """Drop unfinished rows."""

    force: bool
    """Use an engine that does not agree with fp32, and inputs that are stale."""

    def batch(self, px: int) -> int:
        """Return the number of tiles per forward pass for a network with an input of `px`."""
        return self.embed_batch or default_batch(self.device, px)

    @property
    def recorded(self) -> dict[str, str | int | None]:
        """The options that decide the rows, as the record stores them."""
        names = ("engine", "embed_batch", "embed_precision", "views", "dtype")
        return {name: getattr(self, name) for name in names}


@dataclasses.dataclass(frozen=True)
class ExtractionJob:
    """One embeddings file: its tiles, the network, and what its record states."""

    artifact: records.Artifact
    """The file; `known` holds the hash of each input."""

    model: Model
    model_file: Path
    tile_list: Path
    """The manifest, or the grid of a slide; like `model_file` one of the inputs."""

    tiles: TileSource
    """The tiles that get a row each."""

    all_tiles: TileSource
    """The tiles of all shards together. Engines are selected by them, so that all shards take the same engine."""

    table: pd.DataFrame
    """A row for each tile, in the columns of `write_embeddings`."""

    training: Manifest | None
    """The manifest whose training tiles int8 is calibrated on."""

    details: Mapping[str, Any]
    """Further facts for the record."""

    outputs: Sequence[Path] = ()
    shard: ShardRows | None = None
    slide: SlideInfo | None = None


def embedding_artifact(
    out: Path, options: Mapping[str, Any], inputs: Sequence[Path], known: Mapping[Path, str]
) -> records.Artifact:
    """Return how an embeddings file is made; inputs are hashed here, once, unless their hash is known.

    Unfinished rows are the replacement that `--restart` began: the file is no longer protected.
    """
    hashes = {path: known[path] if path in known else atomic.sha256_file(path) for path in inputs}
    protects: Literal["nothing", "options"] = "nothing" if header_path(out).is_file() else "options"
    return records.Artifact(out, SCHEMA, "extract", options, inputs, known=hashes, protects=protects)


def embed_to_hdf5(job: ExtractionJob, settings: ExtractionSettings, engines: Engines) -> dict[str, str]:
    """Compute the missing rows, build the embeddings file and write its record.

    Args:
        job: the tiles, the network and the file.
        settings: how tiles are embedded.
        engines: those that were built for this network before; new ones are added.

    Returns:
        tile_id -> problem of each tile that could not be used.

    Raises:
        PipelineError: the requested engine cannot be used here, or does not agree with fp32.
        StaleInput: the rows so far were made from other inputs, or in another way.
        BadInput: too many tiles cannot be used; the rows so far are kept.
        Interrupted: SIGINT or SIGTERM; the rows so far are kept.
    """
    out, model = job.artifact.path, job.model
    hashes = {path.name: digest for path, digest in job.artifact.known.items()}
    batch = settings.batch(model.preprocess.input_px)
    rows = PartialRows(out, row=row_type(model.width, model.n_logits), identity={}, batch=batch)
    if not settings.restart:
        _use_threads(rows.stored_identity().get("threads"))
    calibration = _calibration(job, settings)
    request = EngineRequest(
        device=settings.device,
        batch=batch,
        n_tiles=len(job.all_tiles),
        engine=settings.engine,
        precision=settings.embed_precision,
        calibration=calibration,
        force=settings.force,
    )
    selection = select_engine(request, model, job.all_tiles, engines)
    log.info(f"extract: {selection}")
    engine = selection.engine
    engine.views = settings.views
    made = {
        "batch": batch,
        "engine": engine.name,
        "precision": engine.precision,
        "views": engine.views,
        "calibration": None if calibration is None else fingerprint(calibration),
        "threads": torch.get_num_threads(),
    }
    log_colours("extract", [job.all_tiles])
    colours = job.all_tiles.colours
    made |= {} if colours is None else {"normalised": colours.facts}
    rows.identity = made | {
        "inputs": hashes,
        "options": dict(job.artifact.options),
        "device": settings.device.type,
        "libraries": {"torch": torch.__version__} | dict(engine.versions),
    }
    done = rows.open(restart=settings.restart)
    atomic.require_space(out.parent, (2 * len(job.table) - done) * rows.row.itemsize)
    start = time.perf_counter()
    problems = embed_missing_rows(
        rows, engine, job.tiles, workers=settings.workers, max_bad=settings.max_bad, n_tiles=len(job.all_tiles)
    )
    n_new = len(job.table) - done
    rate = round(n_new / (time.perf_counter() - start), 2) if n_new else None
    skipped = {str(job.table["tile_id"].iloc[row]): problem for row, problem in problems.items()}
    write_embeddings(out, rows, job.table, attrs=_attributes(job, engine), dtype=settings.dtype, slide=job.slide)
    agreement = None if selection.agreement is None else dataclasses.asdict(selection.agreement)
    records.write_record(
        job.artifact,
        outputs=job.outputs,
        details={
            "skipped": skipped,
            "agreement": agreement,
            "encoder": model.info.get("encoder"),
            "tiles_per_second": rate,
            **made,
            **job.details,
        },
        device=str(settings.device),
    )
    rows.remove()
    log.info(f"extract: {len(job.table)} rows of {model.width} features in {out}")
    for tile_id, problem in skipped.items():
        log.warning(f"extract: skipped {tile_id}: {problem}")
    return skipped


def _use_threads(begun: object) -> None:
    """Compute with as many threads as the rows so far, since sums may depend on their number."""
    if isinstance(begun, int) and 1 <= begun <= MOST_THREADS and begun != torch.get_num_threads():
        log.info(f"extract: continuing with {begun} threads, as the rows so far were computed")
        torch.set_num_threads(begun)


def _calibration(job: ExtractionJob, settings: ExtractionSettings) -> torch.Tensor | None:
    """Return the training tiles for int8; None for another precision.

    Raises:
        UsageError: the model came without a manifest.
    """
    if settings.embed_precision != "int8":
        return None
    if job.training is None:
        raise UsageError("--embed-precision int8 is calibrated on training tiles: give the --run of the model")
    return calibration_pixels(job.training, job.model.preprocess, workers=settings.workers)


def _attributes(job: ExtractionJob, engine: Engine) -> dict[str, Any]:
    """Return the root attributes of the file."""
    known = job.artifact.known
    attrs: dict[str, Any] = {
        "classes": job.model.classes,
        "preprocess": job.model.preprocess.as_json(),
        "model_sha256": known[job.model_file],
        "manifest_sha256": known[job.tile_list],
        "versions": environment.versions() | dict(engine.versions),
        "engine": engine.name,
        "precision": engine.precision,
        "views": engine.views,
        "encoder": job.model.encoder,
        "layer": "avgpool" if job.model.n_logits else "last",
    }
    return attrs if job.shard is None else attrs | {"shard": job.shard.attribute()}
