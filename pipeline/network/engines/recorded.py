"""Build the engine that made an embeddings file, so that new rows can be compared with its rows."""

from collections.abc import Mapping
from typing import Any

import torch

from pipeline.errors import StaleInput
from pipeline.network.engines.base import MOST_BATCH, Engine
from pipeline.network.engines.build import build_engine
from pipeline.network.engines.samples import calibration_pixels, fingerprint
from pipeline.network.model_file import Model
from pipeline.storage.embeddings.reader import VIEWS
from pipeline.tiles.manifest import Manifest

AGAIN = "run `python -m pipeline.extract --restart` and `python -m pipeline.fit_heads` again"


def recorded_engine(
    record: Mapping[str, Any], model: Model, manifest: Manifest, device: torch.device, *, workers: int
) -> Engine:
    """Return the engine that an embeddings record names, with its precision, batch and views.

    Raises:
        PipelineError: that engine cannot be used here.
        StaleInput: the record names no usable engine, or the training tiles that int8 was calibrated on changed.
    """
    made = record["details"]
    engine, precision, batch, views = (made.get(name) for name in ("engine", "precision", "batch", "views"))
    if not isinstance(batch, int) or not 1 <= batch <= MOST_BATCH or not isinstance(views, int) or views not in VIEWS:
        raise StaleInput(f"the record of the embeddings has no batch from 1 to {MOST_BATCH} or no known views: {AGAIN}")
    if not isinstance(engine, str) or not isinstance(precision, str):
        raise StaleInput(f"the record of the embeddings names no engine or no precision: {AGAIN}")
    calibration = None
    if precision == "int8":
        calibration = calibration_pixels(manifest, model.preprocess, workers=workers)
        if fingerprint(calibration) != made.get("calibration"):
            raise StaleInput(
                f"{manifest.root}: the training tiles that int8 was calibrated on changed or cannot be read: restore "
                f"them, or {AGAIN}"
            )
    built = build_engine(engine, model, device=device, precision=precision, batch=batch, calibration=calibration)
    built.views = views
    return built
