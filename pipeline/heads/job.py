"""Fit the heads and baselines of one run, and load those whose files are current."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from pipeline.heads import fit
from pipeline.heads.base import SCHEMA
from pipeline.heads.config import FitConfig
from pipeline.heads.memory_budget import Memory
from pipeline.heads.registry import KINDS, SAVED_KINDS
from pipeline.heads.rows import EMBEDDINGS, HeadData, features_of, stored_sets
from pipeline.names import BASELINES, FILES
from pipeline.storage import freshness, records
from pipeline.storage.freshness import Input


@dataclasses.dataclass(frozen=True)
class Job:
    """The inputs and the result of a run."""

    source: Input
    """embeddings.h5 with its record."""

    baselines: Input | None
    """baselines.h5, if baselines are fitted on it."""

    heads: tuple[str, ...]
    """Heads to fit, in the order of every table."""

    config: FitConfig
    memory: Memory
    limits: Mapping[str, Any]
    """The stated memory, and whether a cluster fits, where rows do not fit into that memory: they change the heads. The
    machine's own memory is not recorded."""

    artifact: records.Artifact
    """predictions.csv, or predictions.parquet."""

    def check_unchanged(self) -> None:
        """Check that the inputs are still those that were read; raises as `Input.check_unchanged`."""
        for each in (self.source, self.baselines):
            if each is not None:
                each.check_unchanged()


def head_artifact(name: str, config: FitConfig, job: Job) -> records.Artifact:
    """Return how the file of a head or baseline is made; options of others do not count."""
    own, path = SAVED_KINDS[name].option, job.artifact.path.parent / FILES[name]
    inputs = [job.source.path]
    if job.baselines is not None and stored_sets(name) != (EMBEDDINGS,):
        inputs.append(job.baselines.path)
    names = ("fit_on", "calibration", "relative", *([own] if own else []))
    chosen = {name: getattr(config, name) for name in names} | dict(job.limits)
    return records.Artifact(path, SCHEMA, "fit_heads", chosen, inputs, job.artifact.seed, job.artifact.known)


def fit_or_load(name: str, data: HeadData, config: FitConfig, job: Job, *, restart: bool) -> fit.CalibratedHead:
    """Return a head or baseline, loaded if its file is current; else fitted, calibrated and saved if it has a file."""
    if name not in SAVED_KINDS:
        return _fitted(name, data, config)
    kind, artifact = SAVED_KINDS[name], head_artifact(name, config, job)
    record = freshness.reusable_record(artifact, restart=restart)
    if record is not None:
        return fit.CalibratedHead(kind.load(artifact.path), record["details"])
    made = _fitted(name, data, config)
    fit.save(made, artifact, job.check_unchanged, device=config.device if kind.uses_device else "cpu")
    return made


def _fitted(name: str, data: HeadData, config: FitConfig) -> fit.CalibratedHead:
    """Return a head or baseline, fitted and calibrated."""
    kind, own = KINDS[name], data.splits[features_of(name)]
    if name in BASELINES:
        return fit.calibrate(fit.fit_baseline(name, kind, own, config), config)
    searched = fit.search_head(name, kind, own, config)
    return fit.calibrate(fit.fit_head(name, kind, own, searched, config), config)
