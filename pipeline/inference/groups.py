"""Predict a whole slide by the rule that the run's report chose for groups."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from pipeline.errors import StaleInput
from pipeline.evaluation.group_rule import RULES, GroupRule, group_probabilities
from pipeline.names import RunFile
from pipeline.runtime.console import log
from pipeline.storage import freshness, records
from pipeline.storage.csv_files import csv_text, no_formula
from pipeline.storage.predictions.csv_table import HeadOutput


def group_rule(run: Path, classes: Sequence[str], *, force: bool) -> GroupRule | None:
    """Return the rule of a run's report; None where no report of the present heads predicts groups.

    Args:
        run: the run folder.
        classes: K classes of the heads.
        force: take a report that is older than its inputs.

    Raises:
        BadArtifact: the record of comparison.csv is damaged or was edited.
    """
    path = run / RunFile.COMPARISON
    if not path.is_file() or not records.record_path(path).is_file():
        return None
    record = records.read_record_alone(path)
    try:
        if not force:
            freshness.check_inputs_unchanged(path, record)
    except StaleInput as error:  # its thresholds are those of other heads
        log.warning(f"predict: no predictions of groups, as the report is older than the heads: {error}")
        return None
    try:
        rule = GroupRule(**record["details"]["groups"])
        known = rule.rule in RULES and len(rule.classes) > 0 and {*rule.classes} <= {*classes}
        known = known and (not rule.thresholds or rule.positive in rule.classes)
        known = known and all(type(threshold) is float for threshold in rule.thresholds.values())
    except (KeyError, TypeError, AttributeError):  # no report of ours: whoever can write a file can write its record
        return None
    return rule if known else None


def slide_csv(
    slide: str, outputs: Mapping[str, HeadOutput], scores: np.ndarray | None, *, rule: GroupRule, classes: Sequence[str]
) -> str:
    """Return groups.csv of a slide, with one row for each head.

    Columns: slide, head, rule, n_tiles, n_rejected, predicted, positive, threshold, is_positive and p_<class>. Where
    all tiles are rejected the slide has no class. Without a threshold of the report its three columns are empty.

    Args:
        slide: its name.
        outputs: head -> its output for M tiles.
        scores: (M,) outlier scores divided by the threshold: tiles above 1 are rejected; None: no tile is.
        rule: the report's.
        classes: K names.
    """
    n_tiles = len(next(iter(outputs.values())).predicted)
    used = np.ones(n_tiles, bool) if scores is None else scores <= 1
    n_used = int(used.sum())
    codes = [list(classes).index(name) for name in rule.classes]
    about = ("slide", "head", "rule", "n_tiles", "n_rejected", "predicted", "positive", "threshold", "is_positive")
    rows = []
    for head, output in outputs.items():
        found = [""] * (4 + len(codes))
        if n_used:
            one_group = np.zeros(n_used, np.int64)
            p = group_probabilities(rule.rule, output.p[used], output.predicted[used], one_group, classes=codes)[0]
            point = ["", "", ""]
            if (threshold := rule.thresholds.get(head)) is not None:
                is_positive = p[rule.classes.index(rule.positive)] >= threshold
                point = [no_formula(rule.positive), f"{threshold:.6f}", "yes" if is_positive else "no"]
            found = [no_formula(rule.classes[int(p.argmax())]), *point, *(f"{value:.6f}" for value in p)]
        rows.append([no_formula(slide), head, rule.rule, n_used, n_tiles - n_used, *found])
    return csv_text([*about, *(f"p_{name}" for name in rule.classes)], rows)
