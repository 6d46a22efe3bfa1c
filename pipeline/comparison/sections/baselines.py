"""Write the section on baselines: their scores on the same test rows, and whether each head is better."""

from pipeline.comparison.pairwise_tests import METRIC
from pipeline.comparison.recommendation import Verdict
from pipeline.comparison.report_data import ReportData
from pipeline.comparison.verdict import Pair
from pipeline.markup.document import Bullets, EmptySection, Section, Table, Text
from pipeline.markup.number_format import NOT_AVAILABLE, count, head_name, interval, level_text, listing, number
from pipeline.names import BASELINES

KNOWS = {
    "majority": "the most frequent class of the fitted rows, the same prediction for every tile",
    "histogram_svm": "how much of which colour a tile holds (8 x 8 x 8 cells of RGB); not where",
    "handcrafted_xgboost": "statistics of colour and stain, local binary patterns, co-occurrence of grey levels",
    "histogram_handcrafted_svm": "the colour histogram and the statistics above, two blocks of equal weight",
    "baseline_mean": "the three baselines above: mean of their log-odds, nothing is fitted",
    "untrained_svm": "a ResNet-50 with random weights (one seed), never trained on any tile",
    "knn": "the embeddings, no fitting: the classes of the 20 nearest tiles by cosine",
    "linear": "the embeddings, one logistic regression",
}
"""Baseline -> what it knows about a tile."""

HARM = Table(
    ["test groups", "histogram, SVM", "hand-crafted, XGBoost", "both, SVM", "mean of the three"],
    [
        ["any, plain features", "0.821", "0.818", "0.833", "0.826"],
        ["patients, relative features", "0.825", "0.821", "0.837", "0.830"],
        ["even mix, relative features", "0.833", "0.815", "0.837", "0.827"],
        ["skewed mix, relative features", "0.831", "0.775", "0.815", "0.804"],
    ],
    "Not of these tiles: what features relative to groups cost where a group has a class mix of its own. Macro-F1 on "
    "breast patches whose test tiles keep their patients or are dealt to groups of 40, with the mix of all tiles or "
    "one from Dirichlet(0.5) (reports/relative-features/measure.py).",
)
"""Harm of `--relative group`, measured once."""


def section(data: ReportData) -> Section | EmptySection:
    """Return whether the heads are better than the best baseline, the table, and what it does not show."""
    predictions, resampling = data.predictions, data.resampling
    if not predictions.baselines:
        return EmptySection("Baselines", "predictions.csv holds no baselines (fit_heads ran with --no-baselines).")
    rows = []
    for head in [*predictions.baselines, *predictions.main_heads]:
        scores = [data.scores[head, "test", metric] for metric in (METRIC, "accuracy")]
        cells = [number(score.value) + interval(score.low, score.high) for score in scores]
        rows.append([head_name(head), KNOWS.get(head, "compared here"), *cells])
    n_units = resampling.n_units(predictions.rows("test"))
    intervals = (
        f"In parentheses: {level_text(resampling.level)} bootstrap intervals over {count(n_units, resampling.unit)}."
        if n_units >= 2
        else f"No intervals (n/a): the test rows come from one {resampling.unit}."
    )
    caption = f"{data.bias_note}The same test rows ({data.test_rows}) for all. {intervals}"
    pairs = [pair for pair in data.verdict.asked if pair.tests.reference == data.verdict.baseline]
    return Section(
        "Baselines",
        [
            Text(_headline(data.verdict, pairs)),
            Text(
                "A head is worth its cost only if it is better than cheaper methods. Baselines are fitted, tuned and "
                "calibrated on the same rows as the heads, and classify the same tiles."
            ),
            Table(["head", "what it knows", "macro-F1", "accuracy"], rows, caption, left=2),
            Bullets(_limits(data)),
            *([HARM] if predictions.details.get("relative") == "group" else []),
        ],
    )


def _headline(verdict: Verdict, pairs: list[Pair]) -> str:
    """Return which heads are better than the best baseline."""
    if verdict.baseline is None or not pairs:
        return "No head can be compared with a baseline that needs no training of a network."
    best = head_name(verdict.baseline)
    better = [head_name(pair.tests.head) for pair in pairs if pair.outcome == "better"]
    if not better:
        return f"No head is shown to be better than the best baseline, {best}."
    verb = "is" if len(better) == 1 else "are"
    return f"{listing(better)} {verb} better than the best baseline, {best}."


def _limits(data: ReportData) -> list[str]:
    """Return what the table does not show."""
    baselines = data.predictions.baselines
    limits = [
        (
            "The best baseline is the best without the network. It is chosen on these test rows among several, "
            "which makes it look a little better than it is."
        )
    ]
    if set(baselines) & {"knn", "linear"}:
        limits.append(
            "Nearest neighbours and the linear probe use the same embeddings: a head that is better owes that to its "
            "classifier. A head that only equals them owes its score to the network."
        )
    if "untrained_svm" in baselines:
        limits.append(
            "The batch normalisation of the untrained network does nothing (its running mean is 0, its variance 1): it "
            "has seen no statistic of any tile, and other random weights give other scores."
        )
    absent = [baseline for baseline in BASELINES if baseline not in baselines]
    if absent:
        names = listing([head_name(baseline) for baseline in absent])
        limits.append(f"{NOT_AVAILABLE}: {names} not fitted (baselines.h5 was not there when fit_heads ran).")
    return limits
