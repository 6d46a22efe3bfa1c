"""Write the section on whole groups: patients or slides with one label each."""

from pipeline.comparison.group_level import GroupLevel
from pipeline.comparison.recommendation import judge
from pipeline.comparison.report_data import ReportData
from pipeline.comparison.scores import by_key, choose_resampling, score_heads
from pipeline.evaluation.bootstrap import bootstrap_auroc
from pipeline.evaluation.group_rule import Share, exact_share
from pipeline.figures.roc import draw_roc
from pipeline.markup.document import Block, Figure, Note, Section, Table, Text
from pipeline.markup.number_format import count, head_name, interval, level_text, number

FIGURE = "roc_groups.png"
"""The figure that this module draws, where there are two classes."""

FEW_GROUPS = 20
"""Test groups below which the section states what so few allow."""

METRICS = {"accuracy": "accuracy", "balanced_accuracy": "balanced accuracy", "macro_f1": "macro-F1"}


def section(data: ReportData) -> Section | None:
    """Return the section, None where groups have no label of their own; draws its figure into the run's folder."""
    found = data.groups
    if found is None or not len(found.predictions.rows("test")):
        return None
    groups, old = found.predictions, data.resampling
    resampling = choose_resampling(groups, n_draws=old.n_draws, seed=old.seed, level=old.level)
    scores = by_key(score_heads(groups, resampling, {}))
    verdict = judge(groups, scores, resampling, rope=data.verdict.rope)
    rows_of_test = groups.rows("test")
    n = resampling.n_units(rows_of_test)
    rows = []
    for head in groups.heads:
        cells = [scores[head, "test", metric] for metric in METRICS]
        y, p = groups.y[rows_of_test], groups.p[head][rows_of_test]
        area = scores[head, "test", "auroc_ovr"].value
        bounds = bootstrap_auroc(
            y, p, units=resampling.ids[rows_of_test], n_draws=old.n_draws, seed=old.seed, level=old.level
        )
        shown = [f"{number(cell.value)}{interval(cell.low, cell.high)}" for cell in cells]
        rows.append([head_name(head), *shown, f"{number(area)}{interval(*bounds)}"])
    chosen = (
        f"chosen on {count(found.n_val, 'validation group')} by balanced accuracy"
        if found.n_val
        else "fixed beforehand, because validation groups are too few to choose a rule"
    )
    caption = (
        f"{count(n, 'test group')}; {level_text(old.level)} intervals over groups. Rule: {found.rule.rule}, {chosen}."
    )
    blocks: list[Block] = [
        Note(f"For whole groups: {verdict.action}"),
        Table(["head", *METRICS.values(), "AUROC"], rows, caption),
    ]
    if n < FEW_GROUPS:
        least = (1 - old.level) ** (1 / n)
        blocks.append(
            Text(
                f"{count(n, 'test group')} allow little: one group is {100 / n:.0f} points of accuracy. Even if all "
                f"are right, the accuracy on new groups can be as low as {number(least, 2)} (one-sided, "
                f"{level_text(old.level)}). Use --protocol logo, so that each group is tested once."
            )
        )
    if found.rule.thresholds:
        blocks.append(_operating_points(found, level=old.level))
    if len(groups.classes) == 2:
        positive = groups.classes[1]
        curves = {head_name(head): groups.p[head][rows_of_test, 1] for head in groups.main_heads}
        draw_roc(data.run / "figures" / FIGURE, groups.y[rows_of_test] == 1, curves, title=f"groups of {positive}")
        about = f"Test groups; positive class: {positive}. Score: {found.rule.rule} of the group's tiles."
        blocks.append(Figure(f"figures/{FIGURE}", "ROC curves of groups", about))
    return Section("Whole groups", blocks)


def _operating_points(found: GroupLevel, *, level: float) -> Table:
    """Return sensitivity and specificity of each head on test groups, at the thresholds of the validation groups."""
    groups, rule = found.predictions, found.rule
    code = groups.classes.index(rule.positive)
    rows_of_test = groups.rows("test")
    positive = groups.y[rows_of_test] == code

    def shown(share: Share) -> str:
        return f"{number(share.value)}{interval(share.low, share.high)}, {share.n} of {share.of}"

    rows = []
    for head, threshold in rule.thresholds.items():
        reached = groups.p[head][rows_of_test, code] >= threshold
        hits, passes = int((reached & positive).sum()), int((~reached & ~positive).sum())
        sensitivity = exact_share(hits, int(positive.sum()), level=level)
        specificity = exact_share(passes, int((~positive).sum()), level=level)
        rows.append([head_name(head), number(threshold), shown(sensitivity), shown(specificity)])
    caption = (
        f"Test groups; {rule.positive} against all other classes. A group is positive from the threshold on. The "
        f"threshold finds {rule.sensitivity:.6g} of {count(found.n_positive_val, 'positive validation group')}, which "
        f"the heads are calibrated on. {level_text(level)} intervals are exact (Clopper and Pearson)."
    )
    return Table(["head", "threshold", "sensitivity", "specificity"], rows, caption)
