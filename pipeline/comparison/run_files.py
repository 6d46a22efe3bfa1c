"""Read the other files of a run: heads, training, audit, tiles, embeddings. All are optional, and each is checked."""

import dataclasses
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from pipeline.comparison.heads_summary import HeadFacts, HeadsSummary, read_heads_summary
from pipeline.errors import BadArtifact, PipelineError
from pipeline.names import RunFile
from pipeline.storage import atomic, records
from pipeline.storage.embeddings.reader import Embeddings, read_embeddings
from pipeline.tiles.manifest import Manifest, read_manifest

OWNERS = {
    RunFile.HEADS: RunFile.PREDICTIONS,
    RunFile.HISTORY: RunFile.MODEL,
    RunFile.MODEL_FACTS: RunFile.MODEL,
    RunFile.AUDIT: RunFile.MANIFEST,
    RunFile.PROTOCOL: RunFile.MANIFEST,
}
"""File -> the artefact whose record lists it."""

PLAIN_FIGURES = ("figures/history.png",)
PIXEL_FIGURES = ("figures/classes.png", "figures/batch.png")
"""Figures of earlier stages that the report shows; the second kind contains pixels of tiles."""

HISTORY_COLUMNS = ("epoch", "train_loss", "val_loss", "val_accuracy")

Content = TypeVar("Content")


@dataclasses.dataclass(frozen=True)
class ModelFacts:
    """The content of model.json that the report shows."""

    facts: Mapping[str, object]
    """arch, recipe, init, metrics and seed, as far as they are there."""

    start_weights: str | None


@dataclasses.dataclass(frozen=True)
class Finding:
    """One finding of the audit."""

    severity: str
    what: str
    tiles: list[str]


@dataclasses.dataclass(frozen=True)
class RunFiles:
    """Contents of the optional files of a run; None where one is absent or cannot be used."""

    summary: HeadsSummary | None
    history: pd.DataFrame | None
    model: ModelFacts | None
    findings: list[Finding] | None
    """The audit's."""

    manifest: Manifest | None
    embeddings: Embeddings | None
    """Without features: the map reads those of the tiles that it shows."""

    figures: frozenset[str]
    """Names, relative to the run, of figures of earlier stages."""

    missing: Mapping[str, str]
    """File -> why it was left out."""

    @property
    def heads(self) -> Mapping[str, HeadFacts]:
        """Head -> its entry of heads.json; empty without that file."""
        return {} if self.summary is None else self.summary.heads

    @property
    def start_weights(self) -> str | None:
        """What the training started from; None: random weights, or not known."""
        if self.model:
            return self.model.start_weights
        return _text((self.summary.training or {}).get("init")) if self.summary else None

    def reason(self, name: str) -> str:
        """Return the sentence on why a file is left out."""
        return f"{name} was left out ({self.missing.get(name, 'it holds nothing of this')})."


LARGEST = {RunFile.MANIFEST: 250_000_000, RunFile.EMBEDDINGS: 10_000_000_000}
"""File -> bytes up to which it is read: about a million tiles. With more, the report shows no tile and no map."""


def optional_files(run: Path, *, pixels: bool, embeddings: bool) -> list[Path]:
    """Return the optional files of a run that are there and decide the content of the report.

    A figure that is a link is left out: the report holds a copy of it, and would carry any file of this machine.

    Args:
        run: the run folder.
        pixels: whether the report may show tiles.
        embeddings: whether it holds the map of the embeddings.
    """
    names = [*OWNERS, *PLAIN_FIGURES]
    names += [records.existing_table(run / RunFile.RANDOM_CONTROL).name, RunFile.ROBUSTNESS]
    names += PIXEL_FIGURES if pixels else []
    names += [RunFile.MANIFEST] if pixels else []
    names += [RunFile.EMBEDDINGS] if embeddings else []
    figures = {run / name for name in (*PLAIN_FIGURES, *PIXEL_FIGURES)}
    found = [run / name for name in names if (run / name).is_file() and not _is_too_large(run, name)]
    return [path for path in found if not (path in figures and path.is_symlink())]


def _is_too_large(run: Path, name: str) -> bool:
    return name in LARGEST and (run / name).stat().st_size > LARGEST[name]


def read_run_files(run: Path, files: Iterable[Path]) -> RunFiles:
    """Read the optional files; a damaged one is left out and named in `missing`."""
    present = {path.relative_to(run).as_posix() for path in files}
    missing: dict[str, str] = {}

    def attempt(name: str, read: Callable[[Path], Content]) -> Content | None:
        if name not in present:
            missing[name] = "not there"
            if (run / name).is_file():
                missing[name] = "too many tiles" if _is_too_large(run, name) else "not requested"
            return None
        try:
            _check_owner(run, name)
            return read(run / name)
        except PipelineError as error:
            missing[name] = str(error).replace(f"{run}/", "")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            missing[name] = "its content breaks the schema: run the stage that makes it again"
        return None

    tables = (records.existing_table(run / RunFile.RANDOM_CONTROL).name, RunFile.ROBUSTNESS)
    missing |= {name: "not there" for name in tables if name not in present}
    return RunFiles(
        summary=attempt(RunFile.HEADS, read_heads_summary),
        history=attempt(RunFile.HISTORY, _read_history),
        model=attempt(RunFile.MODEL_FACTS, _read_model),
        findings=attempt(RunFile.AUDIT, _read_findings),
        manifest=attempt(RunFile.MANIFEST, read_manifest),
        embeddings=attempt(RunFile.EMBEDDINGS, lambda path: read_embeddings(path, with_features=False)),
        figures=frozenset(present & {*PLAIN_FIGURES, *PIXEL_FIGURES}),
        missing=missing,
    )


def _check_owner(run: Path, name: str) -> None:
    """Check a file against its record and against that of the artefact that owns it.

    The artefact itself may be missing (models are not committed); `verify` is the command that reports it.
    """
    path = run / name
    owner = records.existing_table(run / OWNERS.get(name, name))
    for artifact in (path, owner):
        if artifact.is_file() and records.record_path(artifact).is_file():
            record = records.read_record(artifact)
            expected = record["sha256"] if artifact == path else record["outputs"].get(name)
            if expected is not None and atomic.sha256_file(path) != expected:
                raise BadArtifact(f"{name}: not the file that was written: make it again")


def _read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _read_model(path: Path) -> ModelFacts:
    """Return the facts of model.json; its `preprocess` must be an object."""
    model = dict(_read_json(path))
    dict(model.get("preprocess", {}))
    return ModelFacts(
        facts={name: model[name] for name in ("arch", "recipe", "init", "metrics", "seed") if name in model},
        start_weights=_text(model.get("init")),
    )


def _read_findings(path: Path) -> list[Finding]:
    return [
        Finding(str(item["severity"]), str(item["what"]), [str(tile) for tile in item["tiles"]])
        for item in _read_json(path)["findings"]
    ]


def _read_history(path: Path) -> pd.DataFrame:
    history = pd.read_csv(path)
    if not set(HISTORY_COLUMNS) <= set(history.columns) or history.empty:
        raise ValueError
    return history.astype(dict.fromkeys(HISTORY_COLUMNS, float))
