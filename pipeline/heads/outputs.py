"""Turn the scores of heads into predictions: calibrated probabilities, a decision, and the mean of several heads."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.evaluation.calibration import Calibration
from pipeline.evaluation.decision import decided, decision_offsets
from pipeline.markup.number_format import head_name, listing
from pipeline.storage.predictions.csv_table import HeadOutput

LEAST_P = 1e-12
"""Probabilities below this count as this in a mean, so that one head cannot exclude a class for good."""


def calibrated_output(entry: Mapping[str, Any], scores: np.ndarray) -> HeadOutput:
    """Return a head's output as in predictions.csv: calibrated probabilities, and the class that is decided on.

    The decision is the class with the largest score, or by probabilities that are corrected for the class shares.

    Args:
        entry: of the head in heads.json.
        scores: (N, K).
    """
    calibration = entry["calibration"]
    p = Calibration(calibration["method"], calibration["params"]).apply(scores)
    offsets = decision_offsets(entry)
    return HeadOutput(scores.argmax(axis=1) if offsets is None else decided(p, offsets), p, offsets)


def mean_entry(members: Sequence[str], entries: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the entry of heads.json of a mean of calibrated heads: nothing is fitted, so its temperature is 1.

    Its correction for the class shares has the mean strength of its members.

    Args:
        members: names of at least two heads.
        entries: head -> its entry of heads.json.
    """
    names = listing([head_name(member) for member in members])
    decisions = [entries[member]["decision"] for member in members]
    strength = float(np.mean([decision["strength"] for decision in decisions]))
    return {
        "members": list(members),
        "search": [],
        "chosen": {},
        "notes": [f"mean of the log-odds of {names}; nothing is fitted"],
        "search_seconds": 0,
        "fit_seconds": 0,
        "calibration": {"method": "temperature", "params": {"temperature": 1.0}},
        "decision": {"strength": strength, "log_prior": decisions[0]["log_prior"]},
    }


def with_means(
    outputs: Iterable[tuple[str, HeadOutput]], means: Mapping[str, Mapping[str, Any]]
) -> Iterator[tuple[str, HeadOutput]]:
    """Yield each head and its output, and each mean after the last one of its members.

    The probabilities of a mean are the normalised geometric means of those of its members, which for two classes is
    the mean of their log-odds.

    Args:
        outputs: head and its output for N rows.
        means: mean -> its entry of heads.json; the outputs hold all its members.
    """
    sums: dict[str, np.ndarray] = {}
    left = {name: set(entry["members"]) for name, entry in means.items()}
    for head, output in outputs:
        yield head, output
        for name, waiting in left.items():
            if head not in waiting:
                continue
            waiting.remove(head)
            log_p = np.log(np.maximum(output.p, LEAST_P))
            sums[name] = sums[name] + log_p if name in sums else log_p
            if not waiting:
                entry = means[name]
                yield name, calibrated_output(entry, sums.pop(name) / len(entry["members"]))
