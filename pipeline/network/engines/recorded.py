"""The engine of an extraction: settled when its rows are begun, kept with them, used again for what must compare."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from pipeline.errors import BadArtifact, StaleInput, UsageError
from pipeline.network.batches import TileSource
from pipeline.network.engines.base import MOST_BATCH, Engine
from pipeline.network.engines.build import build_engine
from pipeline.network.engines.samples import calibration_pixels, fingerprint, sample_pixels
from pipeline.network.engines.select import choose_engine
from pipeline.network.model_file import Model
from pipeline.runtime.console import log
from pipeline.storage import records
from pipeline.storage.embeddings.partial_rows import PartialRows
from pipeline.storage.embeddings.reader import VIEWS
from pipeline.storage.embeddings.shards import Shard
from pipeline.tiles.manifest import Manifest

SETTLED = ("engine", "precision", "agreement", "calibration", "views")
"""What becomes part of the scratch's identity here, and with `batch` of the details in the embeddings' record."""


def settle_engine(
    scratch: PartialRows,
    model: Model,
    manifest: Manifest | None,
    tiles: TileSource,
    *,
    asked: tuple[str, str],
    device: torch.device,
    restart: bool,
    force: bool,
    n_tiles: int | None = None,
    ready: Engine | None = None,
) -> Engine:
    """Open the scratch and return the engine for its rows: the one they were begun with, or the one chosen now.

    `auto` is decided by timing, which a busy machine can turn: rows go on as they were begun.

    Args:
        scratch: of the extraction; not open yet. Its options may hold `views`, how many orientations a row is the mean
            of.
        model: network, and what its input is.
        manifest: whose training tiles int8 is calibrated on; None where a model came without one.
        tiles: all tiles of the run, or of the slide.
        asked: engine and precision, or auto.
        device: where to run.
        restart: drop the rows that are there.
        force: use an engine that was asked for although it does not agree with plain fp32.
        n_tiles: that it will serve in all, if not these.
        ready: an engine of this model and setting that was built before.

    Raises:
        PipelineError: the engine that was asked for, or begun with, cannot be used here.
        UsageError: int8 without a manifest.
        StaleInput: the scratch belongs to another model, manifest or setting.
    """
    name, precision = asked
    if precision == "int8" and manifest is None:
        raise UsageError(
            "--embed-precision int8 is calibrated on training tiles: it takes the run that the model is of"
        )
    seen, calibration = model.preprocess, None
    if manifest and precision == "int8":
        calibration = calibration_pixels(manifest, seen.size, stain=seen.stain)
    scratch.identity["calibration"] = None if calibration is None else fingerprint(calibration)
    scratch.identity["views"] = views = scratch.identity["options"].get("views", 1)
    how: dict[str, Any] = {"device": device, "batch": scratch.batch, "calibration": calibration}
    if begun := {} if restart else scratch.begun():
        scratch.identity |= {key: begun.get(key) for key in ("engine", "precision", "agreement")}
        scratch.open(restart=False)
        made_by = str(begun.get("engine")), str(begun.get("precision"))
        is_ready = ready is not None and (ready.name, ready.precision) == made_by
        engine = ready if ready and is_ready else build_engine(made_by[0], model, precision=made_by[1], **how)
        engine.views = views
        return engine
    if ready is not None:
        ready.views = 1  # single passes are checked and timed
    choice = choose_engine(
        name,
        model,
        sample_pixels(tiles),
        precision=precision,
        n_tiles=(n_tiles or len(tiles)) * views,
        force=force,
        ready=ready,
        **how,
    )
    scratch.identity |= {
        "engine": choice.engine.name,
        "precision": choice.engine.precision,
        "agreement": None if choice.agreement is None else dataclasses.asdict(choice.agreement),
    }
    scratch.open(restart=restart)
    log.info(f"extract: {choice.reason}")
    choice.engine.views = views
    return choice.engine


def settled_beside(scratch: PartialRows, target: Path, shard: Shard) -> tuple[str, str] | None:
    """Return engine and precision of another shard of the same extraction that lies beside this one, begun or finished.

    Shards settle each for itself; those in one folder need not come to different ends by it.

    Args:
        scratch: of this shard, with its identity.
        target: embeddings file of this shard.
        shard: which it is.
    """
    own = scratch.identity
    options = {name: value for name, value in own["options"].items() if name != "shard"}

    def same(made: Mapping[str, Any], *, inputs: Mapping[str, str], asked: Mapping[str, Any], device: str) -> bool:
        theirs = {name: value for name, value in asked.items() if name != "shard"}
        hashes = set(inputs.values()) == set(own["inputs"].values())
        return hashes and theirs == options and device == own["device"] and made.get("batch") == own["batch"]

    for header in sorted(target.parent.glob(f"embeddings-*-of-{shard.count}.h5.partial.json")):
        other = header.with_name(header.name.removesuffix(".partial.json"))
        begun = PartialRows(other, row=scratch.row, identity={}, batch=scratch.batch).begun()
        if begun and same(begun, inputs=begun["inputs"], asked=begun["options"], device=begun["device"]):
            return str(begun["engine"]), str(begun["precision"])
    for place in sorted(target.parent.glob(f"embeddings-*-of-{shard.count}.h5")):
        try:
            record = records.read_record(place)
        except BadArtifact:
            continue  # it says nothing; whoever merges the shards is told
        made, kind = record["details"], str(record.get("device")).partition(":")[0]
        if same(made, inputs=record["inputs"], asked=record["options"], device=kind):
            return str(made["engine"]), str(made["precision"])
    return None


def recorded_engine(record: Mapping[str, Any], model: Model, manifest: Manifest, device: torch.device) -> Engine:
    """Return the engine that made embeddings, over as many views, so that its rows can be held against them.

    Args:
        record: of the embeddings.
        model: network, and what its input is.
        manifest: of the run.
        device: where to run.

    Raises:
        PipelineError: that engine cannot be used here.
        StaleInput: the record does not say which it was, or the training tiles that int8 was calibrated on changed.
    """
    made = record["details"]
    batch = made.get("batch")
    if not isinstance(batch, int) or not 1 <= batch <= MOST_BATCH or not {"engine", "precision"} <= set(made):
        raise StaleInput(
            "the record of the embeddings does not say which engine made them (an earlier version did): "
            "run `python -m pipeline.extract --restart` and `python -m pipeline.fit_heads` again"
        )
    views = made.get("views", 1)  # earlier versions had no more
    if not isinstance(views, int) or views not in VIEWS:
        raise StaleInput(f"the record of the embeddings speaks of {views} views, known are 1 and 8: run extract again")
    calibration = None
    if made["precision"] == "int8":
        calibration = calibration_pixels(manifest, model.preprocess.size, stain=model.preprocess.stain)
        if fingerprint(calibration) != made.get("calibration"):
            raise StaleInput(
                f"{manifest.root}: the training tiles that int8 was calibrated on cannot be read as they were: restore "
                "them, or run `python -m pipeline.extract --restart` and `python -m pipeline.fit_heads` again"
            )
    engine = build_engine(
        str(made["engine"]),
        model,
        device=device,
        precision=str(made["precision"]),
        batch=batch,
        calibration=calibration,
    )
    engine.views = views
    return engine
