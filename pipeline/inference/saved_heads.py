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
from pipeline.heads.rows import EMBEDDINGS, RELATIVE_SETS, SIDE_BY_SIDE, features_of, joined, stored_sets
from pipeline.names import FILES, HEADS, MEANS, RUN_ONLY, RunFile
from pipeline.storage import atomic, freshness, records
from pipeline.storage.embeddings.relative_features import centres, relative
from pipeline.storage.predictions.csv_table import HeadOutput


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

    means: Mapping[str, np.ndarray]
    """Feature set -> its mean (D,) over training tiles, where features are relative to groups; empty: they are not."""

    embedded: Mapping[str, Any]
    """The record of the embeddings that the heads were fitted on: the network, the engine and their options."""

    described: Mapping[str, Any] | None
    """The record of the baselines.h5 that the heads were fitted on; None: they take embeddings only."""

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

    @property
    def sources(self) -> dict[str, str]:
        """SHA-256 of the files that were read, and of the baselines.h5 that the heads were fitted on, by name."""
        found = {file.name: atomic.sha256_file(file) for file in self.files}
        return found if self.described is None else found | {RunFile.BASELINES: self.described["sha256"]}

    @property
    def feature_sets(self) -> frozenset[str]:
        """The feature sets that the heads take: embeddings, and those of baselines.h5."""
        return frozenset(name for head in self.heads for name in stored_sets(head))

    def centre_of(self, features: str, sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """Return the shrunk mean of each group (G, D) of a feature set in `means`.

        Args:
            features: name of the feature set.
            sums: (G, D) of the features of each group.
            counts: (G,) tiles of each group.

        Raises:
            BadArtifact: heads.json has a mean of another width.
        """
        if self.means[features].shape != sums.shape[1:]:
            raise BadArtifact(f"{self.files[0]}: its mean of {features} has another width: run fit_heads --restart")
        return centres(sums, counts, self.means[features])

    def predict(
        self,
        features: Mapping[str, np.ndarray],
        logits: np.ndarray | None = None,
        centre: Mapping[str, np.ndarray] | None = None,
    ) -> dict[str, HeadOutput]:
        """Return the output of each requested head for N rows.

        Args:
            features: feature set -> (N, D) float32, for each of `feature_sets`.
            logits: (N, K) of the network; None: no head takes them.
            centre: feature set -> (D,) or (N, D) of the rows' groups, for each of `means` that heads take.
        """
        n = len(next(iter(features.values())))
        logits = np.empty((n, 0), np.float32) if logits is None else logits
        rows = {}
        for name in self.feature_sets:
            own = features[name] if centre is None or name not in centre else relative(features[name], centre[name])
            rows[name] = Rows(own, logits, np.full(n, -1), n_classes=len(self.classes))
        for name in {features_of(head) for head in self.heads} & SIDE_BY_SIDE.keys():
            rows[name] = joined([rows[part] for part in SIDE_BY_SIDE[name]])
        fitted = (
            (name, calibrated_output(self.entries[name], head.scores(rows[features_of(name)])))
            for name, head in self.heads.items()
        )
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
            if name in HEADS:
                calibrated_output(entry, np.zeros((1, len(classes))))
            if name in MEANS and not (entry["members"] and set(entry["members"]) <= {*entries} & {*MEANS[name]}):
                return False
        for name, mean in (content.get("relative") or {}).items():
            if name not in RELATIVE_SETS or not np.isfinite(np.array(mean, np.float32)).all():
                return False
    except (ValueError, KeyError, TypeError, AttributeError):
        return False
    return True


def load_heads(
    run: Path,
    summary: Mapping[str, Any],
    names: Sequence[str],
    *,
    record: Mapping[str, Any],
    embedded: Mapping[str, Any],
) -> SavedHeads:
    """Load heads or baselines of a run.

    Args:
        run: the run folder, or a part of a plan.
        summary: from `read_summary`.
        names: names of the heads.
        record: record of its predictions.csv.
        embedded: from `embeddings_record`.

    Raises:
        BadInput: the run has no head of that name.
        BadArtifact: a head's file is damaged, or the record of baselines.h5 is missing.
    """
    entries = summary["heads"]
    known = [name for name in HEADS if name in entries and name not in RUN_ONLY]
    for name in names:
        if name not in known:
            raise BadInput(
                f"{run / RunFile.HEADS}: there is no head '{name}' with a file, only {', '.join(known)}: "
                "run fit_heads with --heads, or take another"
            )
    wanted = {each for name in names for each in (entries[name]["members"] if name in MEANS else [name])}
    fitted = [name for name in HEADS if name in wanted]
    takes_pixels = any(stored_sets(name) != (EMBEDDINGS,) for name in fitted)
    means = summary.get("relative") or {}
    return SavedHeads(
        classes=summary["classes"],
        names=list(names),
        heads={name: SAVED_KINDS[name].load(run / FILES[name]) if name in FILES else Softmax() for name in fitted},
        entries={name: entries[name] for name in {*names, *fitted}},
        means={features: np.array(mean, np.float32) for features, mean in means.items()},
        embedded=embedded,
        described=_baselines_record(run, record) if takes_pixels else None,
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


def _baselines_record(run: Path, record: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the record of the baselines.h5 that heads were fitted on; the file itself may be deleted.

    Raises:
        BadArtifact: the record is missing, damaged or of another file.
    """
    name = next((name for name in record["inputs"] if Path(name).name == RunFile.BASELINES), RunFile.BASELINES)
    made = records.read_record_alone(run / name)
    if made["sha256"] != record["inputs"].get(name):
        raise BadArtifact(f"{run / name}: not the one that the heads were fitted on: run fit_heads again")
    return made
