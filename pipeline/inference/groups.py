"""Predict a whole slide by the rule that the run's report chose for groups."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from pipeline.errors import BadArtifact
from pipeline.evaluation.group_rule import RULES, group_means
from pipeline.storage import records
from pipeline.storage.csv_files import no_formula
from pipeline.storage.predictions.csv_table import HeadOutput


def group_rule(run: Path) -> tuple[str, Path] | None:
    """Return the rule of a run's report, and its comparison.csv; None where the report predicts no groups."""
    path = run / "comparison.csv"
    try:
        rule = records.read_record(path)["details"].get("group_rule")
    except BadArtifact:
        return None
    return (rule, path) if isinstance(rule, str) and rule in RULES else None


def slide_csv(
    slide: str, outputs: Mapping[str, HeadOutput], scores: np.ndarray | None, *, rule: str, classes: Sequence[str]
) -> str:
    """Return groups.csv of a slide: slide, head, rule, n_tiles, predicted and p_<class>, one row for each head.

    Args:
        slide: its name.
        outputs: head -> its output for M tiles.
        scores: (M,) outlier scores over the threshold: rejected tiles count only where all are rejected; None: no tile
            is rejected.
        rule: one of `RULES`.
        classes: K names.
    """
    n_tiles = len(next(iter(outputs.values())).predicted)
    used = np.ones(n_tiles, bool) if scores is None or (scores > 1).all() else scores <= 1
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["slide", "head", "rule", "n_tiles", "predicted", *(f"p_{name}" for name in classes)])
    for head, output in outputs.items():
        p = group_means(rule, output.p[used], output.predicted[used], np.zeros(int(used.sum()), np.int64))[0]
        predicted = no_formula(classes[int(p.argmax())])
        writer.writerow([no_formula(slide), head, rule, int(used.sum()), predicted, *(f"{value:.6f}" for value in p)])
    return buffer.getvalue()
