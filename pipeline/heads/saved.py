"""Load the saved heads of a run with their calibration.

Reads the record of predictions.csv, heads/heads.json and the files of the heads.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pipeline.errors import BadArtifact, BadInput, StaleInput
from pipeline.heads.base import Head, Rows, Softmax
from pipeline.heads.outputs import calibrated_output, with_means
from pipeline.heads.registry import SAVED_KINDS
from pipeline.names import FILES, FUSED, MAIN, MEANS, REFERENCES, RunFile
from pipeline.runtime.console import log
from pipeline.storage import atomic, freshness, records
from pipeline.storage.embeddings.relative_features import centres, relative
from pipeline.storage.predictions.csv_table import SCHEMA, HeadOutput
from pipeline.storage.protocol import FOLDER, check_part, read_protocol


class EmbeddedBy(NamedTuple):
    """The network of the embeddings that heads predict."""

    sha256: str
    """Hash of its model file."""

    subject: str
    """The file that needs this network, for messages."""

    remedy: str
    """Advice in messages, if the heads were fitted on embeddings of another network."""


@dataclasses.dataclass(frozen=True)
class SavedHeads:
    """Heads that predict the same as in predictions.csv."""

    classes: list[str]
    names: list[str]
    """Requested heads, means among them."""

    heads: Mapping[str, Head]
    """The fitted heads that these need."""

    entries: Mapping[str, Mapping[str, Any]]
    """Head or mean -> its entry of heads.json."""

    mean: np.ndarray | None
    """(D,) mean of the embeddings of training tiles, where features are relative to groups; None: they are not."""

    embedded: Mapping[str, Any]
    """The record of the embeddings that the heads were fitted on: the network, the engine and their options."""

    files: list[Path]
    """The files that were read."""

    @property
    def dtype(self) -> str:
        """Type of the stored features that the heads were fitted on.

        Raises:
            BadArtifact: the record of the embeddings does not state it.
        """
        stored = self.embedded["options"].get("dtype", "float32")
        if stored not in ("float32", "float16"):
            raise BadArtifact(f"the record of {self.embedded['artifact']} names no known dtype: run extract --restart")
        return str(stored)

    def centre_of(self, sums: np.ndarray, counts: np.ndarray) -> np.ndarray | None:
        """Return the shrunk mean of each group (G, D), or None where features are not relative to groups.

        Args:
            sums: (G, D) of the embeddings of each group.
            counts: (G,) tiles of each group.

        Raises:
            BadArtifact: heads.json has a mean of another width.
        """
        if self.mean is None:
            return None
        if self.mean.shape != sums.shape[1:]:
            raise BadArtifact(f"{self.files[0]}: its mean embedding has another width: run fit_heads --restart")
        return centres(sums, counts, self.mean)

    def predict(self, rows: Rows, centre: np.ndarray | None = None) -> dict[str, HeadOutput]:
        """Return the output of each requested head for N rows.

        Args:
            rows: with embeddings (N, D).
            centre: (D,) or (N, D) of their groups, where `mean` is not None.
        """
        if centre is not None:
            rows = dataclasses.replace(rows, features=relative(rows.features, centre))
        fitted = ((name, calibrated_output(self.entries[name], head.scores(rows))) for name, head in self.heads.items())
        found = dict(with_means(fitted, {name: self.entries[name] for name in self.names if name in MEANS}))
        return {name: found[name] for name in self.names}


def read_summary(run: Path, record: Mapping[str, Any]) -> dict[str, Any]:
    """Return heads.json of a run: `classes`, and in `heads` the calibration of each that was fitted.

    Args:
        run: the run folder, or a part of a plan.
        record: record of its predictions.csv.

    Raises:
        BadArtifact: heads.json or the file of a head is missing, damaged or not the one that fit_heads wrote.
    """
    changed = freshness.damaged_outputs(records.existing_table(run / RunFile.PREDICTIONS), record)
    for name in (RunFile.HEADS, *FILES.values()):
        if name in changed:
            raise BadArtifact(f"{run / name}: missing or changed since fit_heads wrote it: run fit_heads again")
    summary = atomic.from_json(run / RunFile.HEADS)
    if not _is_summary(summary):
        raise BadArtifact(f"{run / RunFile.HEADS}: its content breaks the schema: run fit_heads --restart")
    return dict(summary)


def _is_summary(content: Any) -> bool:
    """Return whether heads.json has the entries that the heads need."""
    if not isinstance(content, dict) or not isinstance(content.get("heads"), dict):
        return False
    classes, entries = content.get("classes"), content["heads"]
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        return False
    try:
        for name, entry in entries.items():
            if name in MAIN:
                calibrated_output(entry, np.zeros((1, len(classes))))
            if name in MEANS and not (entry["members"] and set(entry["members"]) <= {*entries} & {*MEANS[name]}):
                return False
        if content.get("relative") is not None:
            return bool(np.isfinite(np.array(content["relative"]["mean"], np.float32)).all())
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
        names: names of the heads.
        embedded: from `embeddings_record`.

    Raises:
        BadInput: the run has no head of that name.
        BadArtifact: a head's file is damaged.
    """
    entries = summary["heads"]
    for name in names:
        if name in FUSED and name in entries:
            raise BadInput(
                f"{run / RunFile.HEADS}: '{name}' takes colours and texture, too, which only tiles of the run have: "
                "take another head"
            )
        if name not in entries:
            raise BadInput(
                f"{run / RunFile.HEADS}: there is no head '{name}', only {', '.join(n for n in MAIN if n in entries)}: "
                "run fit_heads with --heads, or take another"
            )
    wanted = {each for name in names for each in (entries[name]["members"] if name in MEANS else [name])}
    fitted = [name for name in MAIN if name in wanted]
    return SavedHeads(
        classes=summary["classes"],
        names=list(names),
        heads={name: SAVED_KINDS[name].load(run / FILES[name]) if name in FILES else Softmax() for name in fitted},
        entries={name: entries[name] for name in {*names, *fitted}},
        mean=None if summary.get("relative") is None else np.array(summary["relative"]["mean"], np.float32),
        embedded=embedded,
        files=[run / RunFile.HEADS, *(run / FILES[name] for name in fitted if name in FILES)],
    )


def embeddings_record(run: Path, record: Mapping[str, Any], network: EmbeddedBy) -> Mapping[str, Any]:
    """Return the record of the embeddings that the heads were fitted on; the embeddings may be deleted.

    Args:
        run: the run folder, or a part of a plan.
        record: record of its predictions.csv.
        network: network of the embeddings.

    Raises:
        StaleInput: predictions.csv was made from embeddings by another network; names both.
    """
    others = []
    for name in record["inputs"]:
        path = run / name
        if path.suffix == ".h5" and records.record_path(path).is_file():
            made = records.read_record_alone(path)
            if network.sha256 in made["inputs"].values():
                return made
            others += [sha256[:12] for of, sha256 in made["inputs"].items() if of.endswith(".safetensors")]
    raise StaleInput(
        f"{run / RunFile.PREDICTIONS} was not made by {network.subject} ({network.sha256[:12]}) but by "
        f"{', '.join(others) or 'one that is not known'}: {network.remedy}"
    )


def _reference(summary: Mapping[str, Any]) -> list[str]:
    """Return the head that others are compared with: the first of `REFERENCES` that a run has."""
    return [name for name in REFERENCES if name in summary["heads"]][:1] or [REFERENCES[0]]


def folder_of_network(run: Path, network: EmbeddedBy) -> Path:
    """Return the folder with the network that made some embeddings: the run's own, or that of a part of its plan.

    Raises:
        StaleInput: the plan has no such network.
    """
    protocol = read_protocol(run)
    if protocol is None:
        return run
    for part in protocol.parts:
        path = protocol.folder(part) / RunFile.MODEL
        if records.record_path(path).is_file() and records.read_record_alone(path)["sha256"] == network.sha256:
            check_part(protocol, part)
            return path.parent
    raise StaleInput(
        f"{network.subject} was embedded by the network {network.sha256[:12]}, that of none of the "
        f"{len(protocol.parts)} parts of {run}: {network.remedy}"
    )


def read_heads(run: Path, head: str, network: EmbeddedBy, *, force: bool) -> SavedHeads:
    """Load a head of a run or part, or all, for embeddings by a network.

    Args:
        run: the folder.
        head: a name, "auto" for the reference, or "all".
        network: network of the embeddings to predict.
        force: use heads although one of their inputs has changed.

    Raises:
        BadInput: the run has no head of that name.
        BadArtifact: a file is missing or damaged.
        StaleInput: the heads were fitted on embeddings of another network, or one of their inputs has changed.
    """
    path = records.existing_table(run / RunFile.PREDICTIONS)
    record = records.check_artifact(path, schema=SCHEMA)
    embedded = embeddings_record(run, record, network)
    if not force:
        freshness.check_inputs_unchanged(path, record)
    summary = read_summary(run, record)
    all_names = [name for name in MAIN if name in summary["heads"] and name not in FUSED]
    if head == "all" and (left_out := sorted(FUSED & set(summary["heads"]))):
        log.info(f"{run}: {', '.join(left_out)} predict the tiles of the run only, and are left out")
    names = {"all": all_names, "auto": _reference(summary)}.get(head, [head])
    return load_heads(run, summary, names, embedded=embedded)


def read_saved_head(run: Path, head: str) -> SavedHeads:
    """Load a head of a run or part that predicts from the features of single tiles, whatever made them.

    Args:
        run: the folder.
        head: a name, or "auto" for the first one that the run has.

    Raises:
        BadInput: the run has no head of that name, or the head needs logits, or other tiles of the group.
        BadArtifact: a file is missing or damaged.
        StaleInput: an input of the heads has changed.
    """
    if read_protocol(run) is not None:
        raise BadInput(f"{run} is a plan, each part has heads of its own: give a folder in {run / FOLDER}")
    path = records.existing_table(run / RunFile.PREDICTIONS)
    record = freshness.checked_record(path, schema=SCHEMA, force=False)
    summary = read_summary(run, record)
    usable = [name for name in MAIN if name in FILES and name in summary["heads"] and name not in FUSED]
    if head == "auto" and usable:
        head = usable[0]
    if head not in usable:
        raise BadInput(f"{run}: no head '{head}' that takes features alone, only {', '.join(usable) or 'none'}")
    if summary.get("relative") is not None:
        raise BadInput(f"{run}: its heads take features relative to the group (--relative group): use `predict`")
    inputs = [run / name for name in record["inputs"] if name.endswith(".h5")]
    embedded = next((each for each in inputs if records.record_path(each).is_file()), None)
    made: Mapping[str, Any] = {"options": {}} if embedded is None else records.read_record_alone(embedded)
    return load_heads(run, summary, [head], embedded=made)
