"""Predict a whole slide by the rule that the run's report chose for groups."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from pipeline.evaluation.group_rule import RULES, group_means
from pipeline.storage import records
from pipeline.storage.csv_files import no_formula
from pipeline.storage.predictions.csv_table import HeadOutput


def group_rule(run: Path) -> str | None:
    """Return the rule of a run's report; None where there is no report, or it predicts no groups.

    Raises:
        BadArtifact: the record of comparison.csv is damaged or was edited.
    """
    path = run / "comparison.csv"
    if not records.record_path(path).is_file():
        return None
    rule = records.read_record_alone(path)["details"].get("group_rule")
    return rule if isinstance(rule, str) and rule in RULES else None


def slide_csv(
    slide: str, outputs: Mapping[str, HeadOutput], scores: np.ndarray | None, *, rule: str, classes: Sequence[str]
) -> str:
    """Return groups.csv of a slide: slide, head, rule, n_tiles, n_rejected, predicted and p_<class>, one row a head.

    Where all tiles are rejected the slide has no class.

    Args:
        slide: its name.
        outputs: head -> its output for M tiles.
        scores: (M,) outlier scores over the threshold: tiles above 1 are rejected; None: no tile is.
        rule: one of `RULES`.
        classes: K names.
    """
    n_tiles = len(next(iter(outputs.values())).predicted)
    used = np.ones(n_tiles, bool) if scores is None else scores <= 1
    n_used = int(used.sum())
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["slide", "head", "rule", "n_tiles", "n_rejected", "predicted", *(f"p_{name}" for name in classes)])
    for head, output in outputs.items():
        found = ["", *([""] * len(classes))]
        if n_used:
            p = group_means(rule, output.p[used], output.predicted[used], np.zeros(n_used, np.int64))[0]
            found = [no_formula(classes[int(p.argmax())]), *(f"{value:.6f}" for value in p)]
        writer.writerow([no_formula(slide), head, rule, n_used, n_tiles - n_used, *found])
    return buffer.getvalue()
