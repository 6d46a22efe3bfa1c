"""State what the records hold about the evaluation and its results.

Nothing is invented: a statement is a value of a record, or follows from it. None: the run's records hold nothing of it.
"""

from collections.abc import Mapping

from pipeline.comparison.sections.overview import METRIC_ROWS
from pipeline.markup.number_format import count, head_name, level_text, listing, number
from pipeline.names import RunFile
from pipeline.publication.run_facts import RunFacts
from pipeline.publication.statement import (
    COMPARISON,
    MANIFEST,
    PREDICTIONS,
    Statement,
    any_score,
    companions,
    rows_text,
    value_text,
)

MAIN_METRICS: Mapping[str, str] = {"macro_f1": "macro-F1", "accuracy": "accuracy"}
"""Metric -> its name, of those that a statement quotes."""

MOST_FINDINGS = 5
"""Findings of the audit that a statement quotes."""


def metrics(run: RunFacts) -> Statement | None:
    """Return the metrics, and which decides."""
    found = [name for metric, (name, _) in METRIC_ROWS.items() if any_score(run, metric, "test") is not None]
    text = f"{listing(found)}; precision, recall and F1 of each class. Macro-F1 decides."
    return Statement(text, (f"{RunFile.COMPARISON}: metric",)) if found else None


def uncertainty(run: RunFacts) -> Statement | None:
    """Return how intervals and tests are computed."""
    unit, draws = run.get(COMPARISON, "details", "intervals"), run.get(COMPARISON, "details", "n_draws")
    rope = run.get(COMPARISON, "options", "rope")
    text = (
        f"{level_text(run.level)} bootstrap intervals over each {unit} ({draws} draws). Pairs of heads: paired "
        f"intervals, sign-flip tests over each {unit} with Holm's adjustment, region of practical equivalence {rope}."
    )
    return Statement(text, (f"{COMPARISON}: details.intervals, details.n_draws, details.level, options.rope",))


def robustness(run: RunFacts) -> Statement | None:
    """Return the corruptions under which the test rows were predicted again."""
    names = run.get(f"{RunFile.ROBUSTNESS}.json", "options", "corruptions")
    text = f"Test tiles under {listing(names)}: macro-F1 kept is in comparison.md." if names else ""
    return Statement(text, (f"{RunFile.ROBUSTNESS}.json: options.corruptions",)) if names else None


def internal(run: RunFacts) -> Statement | None:
    """Return what the test rows are."""
    score = any_score(run, "accuracy", "test")
    name = run.get(MANIFEST, "details", "dataset")
    text = f"Test rows are held out of the same data set ({name}): {rows_text(score)}." if score else ""
    return Statement(text, (f"{RunFile.COMPARISON}: n, n_groups", f"{MANIFEST}: details.dataset")) if score else None


def performance(run: RunFacts) -> Statement | None:
    """Return macro-F1 and accuracy of each head on the test rows, and the verdict."""
    parts = []
    for head in run.heads:
        values = [f"{name} {value_text(run.score(head, metric))}" for metric, name in MAIN_METRICS.items()]
        parts.append(f"{head_name(head)}: {', '.join(values)}")
    code = run.get(COMPARISON, "details", "verdict")
    text = f"Test rows, {level_text(run.level)} intervals. {'; '.join(parts)}. Verdict: {code}."
    return Statement(text, (f"{RunFile.COMPARISON}: value, low, high", f"{COMPARISON}: details.verdict"))


def baselines(run: RunFacts) -> Statement | None:
    """Return macro-F1 of the simple baselines on the test rows."""
    parts = [f"{head_name(head)} {value_text(run.score(head, 'macro_f1'))}" for head in run.baselines]
    text = f"Baselines, macro-F1 on the test rows: {', '.join(parts)}."
    return Statement(text, (f"{RunFile.COMPARISON}: value, low, high",)) if parts else None


def per_class(run: RunFacts) -> Statement | None:
    """Return sensitivity (recall) and precision of each class for the best head."""
    best, parts = run.get(COMPARISON, "details", "best"), []
    for name in run.get(RunFile.HEADS, "classes") or ():
        recall, precision = (run.score(best, f"{metric}[{name}]") for metric in ("recall", "precision"))
        if recall is not None and precision is not None:
            parts.append(f"{name} {number(recall.value)}, {number(precision.value)} (n {recall.n})")
    text = f"Sensitivity and precision by class of {head_name(best)}, test rows: {'; '.join(parts)}."
    return Statement(text, (f"{RunFile.COMPARISON}: recall[class], precision[class]",)) if parts else None


def groups(run: RunFacts) -> Statement | None:
    """Return where the scores of single groups are."""
    return companions(run, {RunFile.PER_GROUP: "Accuracy of each head in each group is in per_group.csv."})


def failures(run: RunFacts) -> Statement | None:
    """Return where wrong predictions are shown."""
    known = {
        "figures/confusion.png": "Confusion matrices: figures/confusion.png.",
        "figures/errors.png": "Most confident errors: figures/errors.png.",
        RunFile.LABEL_ERRORS: "Likely label errors: label_errors.csv.",
    }
    return companions(run, known)


def cross_table(run: RunFacts) -> Statement | None:
    """Return where predictions are counted against labels."""
    text = "Confusion matrices: figures/confusion.png; every prediction with its label: the predictions file."
    return companions(run, {"figures/confusion.png": text})


def label_errors(run: RunFacts) -> Statement | None:
    """Return where likely label errors are listed."""
    return companions(run, {RunFile.LABEL_ERRORS: "Likely label errors (cleanlab) are in label_errors.csv."})


def limitations(run: RunFacts) -> Statement | None:
    """Return the limits that follow from the records."""
    found, sources = [], [f"{COMPARISON}: details.verdict, details.protocol"]
    if run.get(COMPARISON, "details", "protocol") == "random":
        found.append("The split is random: scores are biased upwards for tiles of new slides.")
    if run.get(COMPARISON, "details", "verdict") == "too_few_units":
        found.append("The test rows come from too few groups for the comparisons that are asked: nothing is decided.")
    if run.protocol is None and run.encoder is None:
        found.append("One split and one trained network: another seed can change scores more than heads differ.")
    findings = run.get(RunFile.AUDIT, "findings") or []
    if findings:
        quoted = "; ".join(str(finding["what"]) for finding in findings[:MOST_FINDINGS])
        found.append(f"The audit has {count(len(findings), 'finding')}: {quoted}.")
        sources.append(f"{RunFile.AUDIT}: findings")
    return Statement(" ".join(found), tuple(sources)) if found else None


def prediction(run: RunFacts) -> Statement | None:
    """Return how new tiles are classified with the files of the run."""
    if run.network(f"{RunFile.MODEL}.json", "sha256") is None:
        return None
    text = "New tiles: python -m pipeline.predict with model.safetensors and heads/; formats are documented."
    return Statement(text, (f"{run.of_network}{RunFile.MODEL}.json: sha256",))


def audit_trail(run: RunFacts) -> Statement | None:
    """Return that predictions are stored with their hashes."""
    sha = run.get(PREDICTIONS, "sha256")
    text = f"Every prediction is stored (SHA-256 {sha}); python -m pipeline.verify checks all hashes."
    return Statement(text, (f"{PREDICTIONS}: sha256",)) if sha else None
