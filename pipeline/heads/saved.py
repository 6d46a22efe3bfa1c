"""The heads of a run as fit_heads saved them: fitted, calibrated, and what they were given. Nothing is fitted here.

Reads the record of predictions.csv, heads/heads.json, heads/svm.skops and heads/xgboost.ubj.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import BadArtifact, BadInput, StaleInput
from pipeline.evaluation.calibration import Calibration
from pipeline.heads.base import Head, Rows, Softmax
from pipeline.heads.svm.classifier import Svm
from pipeline.heads.xgb.booster import Boosting
from pipeline.names import FILES, MAIN, SUMMARY
from pipeline.storage import atomic, freshness, records
from pipeline.storage.predictions.csv_table import SCHEMA, HeadOutput
from pipeline.storage.protocol import check_part, read_protocol

LOADERS: Mapping[str, Callable[[Path], Head]] = {"svm": Svm.load, "xgboost": Boosting.load}
"""Head -> what reads its file."""


@dataclasses.dataclass(frozen=True)
class SavedHeads:
    """Heads that answer as they did in predictions.csv."""

    classes: list[str]
    heads: Mapping[str, Head]
    calibration: Mapping[str, Mapping[str, Any]]
    """Head -> its entry "calibration" of heads.json."""

    embedded: Mapping[str, Any]
    """The record of the embeddings that the heads were given: which network and engine made them, and how."""

    files: list[Path]
    """What they were read from."""

    @property
    def dtype(self) -> str:
        """How the features were stored that the heads were fitted on.

        Raises:
            BadArtifact: the record of the embeddings does not say it.
        """
        stored = self.embedded["options"].get("dtype", "float32")
        if stored not in ("float32", "float16"):
            raise BadArtifact(f"the record of {self.embedded['artifact']} names no known dtype: run extract --restart")
        return str(stored)

    def answers(self, rows: Rows) -> dict[str, HeadOutput]:
        """Return what each head says of N rows."""
        return {name: decide(self.calibration[name], head.scores(rows)) for name, head in self.heads.items()}


def decide(calibration: Mapping[str, Any], scores: np.ndarray) -> HeadOutput:
    """Return what a head says, as in predictions.csv: calibrated probabilities, and the class its scores decide for.

    Args:
        calibration: the head's entry "calibration" of heads.json.
        scores: (N, K).
    """
    p = Calibration(calibration["method"], calibration["params"]).apply(scores)
    return HeadOutput(scores.argmax(axis=1), p)


def read_summary(run: Path, record: Mapping[str, Any]) -> dict[str, Any]:
    """Return heads.json of a run: `classes`, and in `heads` the calibration of each that was fitted.

    Args:
        run: the run folder, or a part of a plan.
        record: of its predictions.csv.

    Raises:
        BadArtifact: it, or a head's file, is missing, damaged or not the one that fit_heads wrote.
    """
    changed = freshness.damaged_outputs(records.standing(run / "predictions.csv"), record)
    for name in (SUMMARY, *FILES.values()):
        if name in changed:
            raise BadArtifact(f"{run / name}: missing or changed since fit_heads wrote it: run fit_heads again")
    summary = atomic.from_json(run / SUMMARY)
    if not _is_summary(summary):
        raise BadArtifact(f"{run / SUMMARY}: its content is not what the schema says: run fit_heads --restart")
    return dict(summary)


def _is_summary(content: Any) -> bool:
    """Tell whether the content of heads.json holds what is needed to use the heads."""
    if not isinstance(content, dict) or not isinstance(content.get("heads"), dict):
        return False
    classes = content.get("classes")
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        return False
    try:
        for name, entry in content["heads"].items():
            if name in MAIN:
                decide(entry["calibration"], np.zeros((1, len(classes))))
    except (ValueError, KeyError, TypeError, AttributeError):
        return False
    return True


def load_heads(
    run: Path, summary: Mapping[str, Any], names: Sequence[str], *, embedded: Mapping[str, Any]
) -> SavedHeads:
    """Load heads of a run.

    Args:
        run: the run folder, or a part of a plan.
        summary: from `read_summary`.
        names: of the heads.
        embedded: from `embeddings_record`.

    Raises:
        BadInput: the run has no head of that name.
        BadArtifact: a head's file is damaged.
    """
    entries = summary["heads"]
    for name in names:
        if name not in entries:
            raise BadInput(
                f"{run / SUMMARY}: there is no head '{name}', only {', '.join(n for n in MAIN if n in entries)}: run "
                "fit_heads with --heads, or take another"
            )
    return SavedHeads(
        classes=summary["classes"],
        heads={name: LOADERS[name](run / FILES[name]) if name in LOADERS else Softmax() for name in names},
        calibration={name: entries[name]["calibration"] for name in names},
        embedded=embedded,
        files=[run / SUMMARY, *(run / FILES[name] for name in names if name in FILES)],
    )


def embeddings_record(run: Path, record: Mapping[str, Any], *, model: str, whose: str, todo: str) -> Mapping[str, Any]:
    """Return the record of the embeddings that the heads were given; the file may be gone.

    Args:
        run: the run folder, or a part of a plan.
        record: of its predictions.csv.
        model: SHA-256 of the network that they must be by.
        whose: what that network is, for the message.
        todo: what to do if they are not, likewise.

    Raises:
        StaleInput: none of the inputs of predictions.csv are embeddings by that network; names both.
    """
    others = []
    for name in record["inputs"]:
        path = run / name
        if path.suffix == ".h5" and records.record_path(path).is_file():
            made = records.read_record_alone(path)
            if model in made["inputs"].values():
                return made
            others += [sha256[:12] for of, sha256 in made["inputs"].items() if of.endswith(".safetensors")]
    raise StaleInput(
        f"{run / 'predictions.csv'} was not made by {whose} ({model[:12]}) but by "
        f"{', '.join(others) or 'one that is not known'}: {todo}"
    )


def folder_of_network(run: Path, model: str, *, whose: str, todo: str) -> Path:
    """Return the folder whose network made some embeddings: the run's own, or that of a part of its plan.

    Args:
        run: the run folder.
        model: SHA-256 of the network.
        whose: what it embedded, for the message.
        todo: what to do if the plan has no such network, likewise.

    Raises:
        StaleInput: the plan has no such network.
    """
    protocol = read_protocol(run)
    if protocol is None:
        return run
    for part in protocol.parts:
        path = protocol.folder(part) / "model.safetensors"
        if records.record_path(path).is_file() and records.read_record_alone(path)["sha256"] == model:
            check_part(protocol, part)
            return path.parent
    raise StaleInput(
        f"{whose} was embedded by the network {model[:12]}, that of none of the {len(protocol.parts)} parts of "
        f"{run}: {todo}"
    )


def read_heads(run: Path, head: str, *, model: str, whose: str, todo: str, force: bool) -> SavedHeads:
    """Load a head of a run or part, or all, for embeddings by a network.

    Args:
        run: the folder.
        head: a name, or "all".
        model: SHA-256 of the network.
        whose: what that network is, for messages.
        todo: what to do where the heads are another network's, likewise.
        force: use heads although an input of theirs has changed since.

    Raises:
        BadInput: the run has no head of that name.
        BadArtifact: a file is missing or damaged.
        StaleInput: they were fitted on embeddings of another network, or an input of theirs has changed.
    """
    path = records.standing(run / "predictions.csv")
    record = records.check_artifact(path, schema=SCHEMA)
    embedded = embeddings_record(run, record, model=model, whose=whose, todo=todo)
    if not force:
        freshness.check_inputs_unchanged(path, record)
    summary = read_summary(run, record)
    names = [name for name in MAIN if name in summary["heads"]] if head == "all" else [head]
    return load_heads(run, summary, names, embedded=embedded)
