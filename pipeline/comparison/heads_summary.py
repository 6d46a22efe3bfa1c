"""Read heads/heads.json: how each head was chosen and calibrated, and what the embeddings show."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.comparison.scores import COSTS
from pipeline.markup.number_format import is_number


@dataclasses.dataclass(frozen=True)
class HeadFacts:
    """The entry of a head in heads.json."""

    chosen: Mapping[str, object] = dataclasses.field(default_factory=dict)
    """Hyper-parameter -> value."""

    val_nll: list[float] = dataclasses.field(default_factory=list)
    """Validation NLL of every setting of the search."""

    n_tried: int = 0
    calibration: str | None = None
    """Method of calibration."""

    left_out: str | None = None
    """What the cross-validation of the methods left out: group or tile."""

    calibration_nll: Mapping[str, object] = dataclasses.field(default_factory=dict)
    """Method -> NLL by that cross-validation; empty where the methods were not compared."""

    strength: float | None = None
    """Power of the class shares that `--decide balanced` divides probabilities by; None: not known."""

    strength_f1: Mapping[str, object] = dataclasses.field(default_factory=dict)
    """Strength -> cross-validated macro-F1; empty where the strengths were not compared."""

    notes: list[str] = dataclasses.field(default_factory=list)
    costs: Mapping[str, float] = dataclasses.field(default_factory=dict)
    """Name of `COSTS` -> value, as far as they are known."""


@dataclasses.dataclass(frozen=True)
class SourceProbe:
    """How well an SVM on the embeddings predicts the group of a validation tile; shares from 0 to 1."""

    accuracy: float
    chance: float
    balanced_accuracy: float
    chance_balanced: float
    n_tiles: float
    n_groups: float
    n_parts: float | None = None
    """Parts of a plan; None for a single split."""

    n_probed: float | None = None
    """Parts whose probe could be fitted; the numbers are means over them."""


@dataclasses.dataclass(frozen=True)
class Separability:
    """How far the classes are apart in the embeddings of one split; None: not known."""

    scatter_ratio: float | None
    """Scatter between the class means over scatter within the classes (Fisher's criterion)."""

    accuracy: float | None
    """Accuracy of the network's softmax head."""


@dataclasses.dataclass(frozen=True)
class HeadsSummary:
    """Content of heads/heads.json."""

    heads: Mapping[str, HeadFacts]
    probe: SourceProbe | str
    """The probe, or why there is none."""

    separability: Mapping[str, Separability]
    """Split -> how far its classes are apart; empty if it was not measured."""

    training: Mapping[str, object] | None
    """Facts on the trainings of a plan; None for a single split."""


def read_heads_summary(path: Path) -> HeadsSummary:
    """Return the content of heads.json.

    Raises:
        ValueError, KeyError, TypeError, AttributeError, RecursionError: the content breaks the schema.
    """
    content = dict(json.loads(path.read_text(encoding="utf-8")))
    probe = dict(content.get("source_probe", {}))
    training = content.get("training")
    return HeadsSummary(
        heads={str(head): _head_facts(dict(entry)) for head, entry in dict(content["heads"]).items()},
        probe=_probe(probe) if is_number(probe.get("accuracy")) else str(probe.get("reason", "not measured")),
        separability={
            split: Separability(_number(dict(found).get("scatter_ratio")), _number(dict(found).get("accuracy")))
            for split, found in dict(content.get("separability", {})).items()
        },
        training=None if training is None else dict(training),
    )


def _head_facts(entry: Mapping[str, Any]) -> HeadFacts:
    search, calibration = list(entry.get("search") or ()), dict(entry.get("calibration") or ())
    nll, decision = calibration.get("nll"), dict(entry.get("decision") or ())
    strength_f1 = decision.get("macro_f1")
    return HeadFacts(
        chosen=dict(entry.get("chosen") or ()),
        val_nll=[value for trial in search if (value := _number(dict(trial).get("val_nll"))) is not None],
        n_tried=len(search),
        calibration=_text(calibration.get("method")),
        left_out=_text(calibration.get("unit")),
        calibration_nll=nll if isinstance(nll, dict) else {},
        strength=_number(decision.get("strength")),
        strength_f1=strength_f1 if isinstance(strength_f1, dict) else {},
        notes=[str(note) for note in entry.get("notes") or ()],
        costs={name: value for name in COSTS if (value := _number(entry.get(name))) is not None},
    )


def _probe(found: Mapping[str, Any]) -> SourceProbe:
    names = ("accuracy", "chance", "balanced_accuracy", "chance_balanced", "n_tiles", "n_groups")
    if not all(is_number(found.get(name)) for name in names):
        raise ValueError
    numbers = {name: float(found[name]) for name in names}
    return SourceProbe(**numbers, n_parts=found.get("n_parts"), n_probed=found.get("n_probed"))


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and is_number(value) else None


def _text(value: object) -> str | None:
    return None if value is None else str(value)
