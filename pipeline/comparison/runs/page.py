"""Write the comparison of several runs as a page, in Markdown and in HTML."""

from pipeline.comparison.heads_summary import SourceProbe
from pipeline.comparison.pairwise_tests import METRIC
from pipeline.comparison.runs.margin import MOST_ROWS
from pipeline.comparison.runs.pairs import RunPair
from pipeline.comparison.runs.table import BEST, RunTable
from pipeline.comparison.verdict import p_text, rope_text, units_needed
from pipeline.evaluation.robustness_margin import NEIGHBOURS, RobustnessMargin
from pipeline.markup.document import Block, Bullets, Document, Note, Section, Table
from pipeline.markup.number_format import (
    NOT_AVAILABLE,
    count,
    head_name,
    interval,
    level_text,
    number,
    percent,
    points,
    seconds,
    size,
)


def page_of(table: RunTable, *, against: str = BEST) -> Document:
    """Return the page: the verdict, all heads by rank, its pairs, the runs with their prices, and how to read it.

    Args:
        table: of `build_table`.
        against: as given to it.
    """
    sections = [_verdict(table), _ranking(table), _pairs(table, against), _prices(table), _embeddings(table)]
    if table.losses:
        sections.append(_corruptions(table))
    sections.append(Section("How to read this", [Bullets(_notes(table, against))]))
    return Document(f"Comparison of {count(len(table.matched.prices), 'run')}", sections)


def _verdict(table: RunTable) -> Section:
    blocks: list[Block] = [Note(table.verdict.sentence)]
    if table.matched.is_random:
        blocks.append(
            Note(
                "Random split: tiles of one slide or patient are in both train and test, so that all figures are "
                "biased upwards."
            )
        )
    elif table.matched.group is None:
        blocks.append(Note("Groups (slides, patients) are not known: all figures may be biased upwards."))
    return Section("Verdict", blocks)


def _ranking(table: RunTable) -> Section:
    resampling, rows, best = table.resampling, [], table.ranked[0]
    seeds = sorted({metric for _, metric in table.scores if metric.startswith(f"{METRIC}[seed")})
    with_best = {pair.head: pair for pair in table.every if pair.reference == best.key}
    for rank, head in enumerate(table.ranked, start=1):
        cells = []
        for metric in (METRIC, "accuracy"):
            score = table.scores[head.key, metric]
            cells.append(number(score.value) + interval(score.low, score.high))
        if seeds:
            each = [table.scores[head.key, name].value for name in seeds]
            cells.append(f"{number(min(each))} to {number(max(each))}")
        gap = with_best[head.key].difference if head.key in with_best else None
        difference = "-" if gap is None else points(gap.value) + interval(100 * gap.low, 100 * gap.high, 1)
        price = table.matched.prices[head.run]
        costs = [number(head.gflops, 2), seconds(price.fit_seconds.get(head.head))]
        names = [str(rank), table.letters[head.key], head.run, head_name(head.head)]
        rows.append([*names, *cells, difference, *costs])
    columns = ["rank", "letters", "run", "head", "macro-F1", "accuracy", *(["macro-F1 by seed"] if seeds else [])]
    columns += ["less the best, points", "GFLOP a tile", "fit"]
    caption = (
        f"{count(len(table.matched.y), 'test row')} ({count(len(set(table.matched.tile.tolist())), 'tile')}), the same "
        f"for all, by macro-F1. In parentheses: {level_text(resampling.level)} bootstrap intervals over "
        f"{count(table.n_units, resampling.unit)}. Heads that share a letter are not shown to differ, at "
        f"{count(len(table.every), 'pair')} (Holm)."
    )
    if table.n_units < (needed := units_needed(len(table.every), level=resampling.level)):
        caption += (
            f" With fewer than {needed} {resampling.unit}s so many pairs cannot be shown to differ, whatever they are."
        )
    return Section("All heads of all runs", [Table(columns, rows, caption, left=4)])


def _pairs(table: RunTable, against: str) -> Section:
    columns = ["head", "compared with", "difference in points", "p", "p (Holm)", "outcome"]
    what = "The pairs that the verdict rests on" if against == BEST else f"Each head with the same head of {against}"
    caption = f"{what}; p is adjusted for {count(len(table.asked), 'pair')}."
    return Section("The pairs", [Table(columns, [_pair_row(pair) for pair in table.asked], caption, left=2)])


def _pair_row(pair: RunPair) -> list[str]:
    gap = pair.difference
    difference = points(gap.value) + interval(100 * gap.low, 100 * gap.high, 1)
    return [pair.candidate.text, pair.other.text, difference, p_text(pair.p), p_text(pair.holm_p), pair.outcome]


def _prices(table: RunTable) -> Section:
    rows = []
    for run, price in table.matched.prices.items():
        rows.append(
            [
                run,
                price.arch or NOT_AVAILABLE,
                NOT_AVAILABLE if price.arch is None else price.start_weights or "random weights",
                price.embedded_by or NOT_AVAILABLE,
                *(NOT_AVAILABLE if each is None else str(each) for each in (price.tile_px, price.dimension)),
                size(price.bytes_per_tile),
                number(None if price.parameters is None else price.parameters / 1e6, 1),
                number(price.gflops, 2),
                number(price.tiles_per_second, 1),
                seconds(price.train_seconds),
            ]
        )
    columns = ["run", "network", "trained from", "embedded by", "tile px", "D", "stored a tile", "10^6 parameters"]
    columns += ["GFLOP a tile", "tiles/s", "training"]
    caption = (
        "D: width of an embedding. GFLOP a tile: floating point operations of the network for all views of a tile. "
        "Rates and times were measured by these runs. They compare only where device, precision and load of the "
        "machine were the same, and decide nothing."
    )
    return Section("The runs and their prices", [Table(columns, rows, caption, left=4)])


def _embeddings(table: RunTable) -> Section:
    rows = []
    for run, price in table.matched.prices.items():
        probe, margin = price.probe, table.margins[run]
        cells = [NOT_AVAILABLE, NOT_AVAILABLE]
        if isinstance(probe, SourceProbe):
            cells = [percent(probe.accuracy, 1), percent(probe.chance, 1)]
        numbers, why = [NOT_AVAILABLE] * 4, "" if isinstance(margin, RobustnessMargin) else margin
        if isinstance(margin, RobustnessMargin):
            numbers = [number(margin.median), number(margin.tail_mean), percent(margin.share_negative)]
            numbers.append(f"{margin.n_scored} of {margin.n}")
        rows.append([run, *cells, *numbers, why])
    columns = ["run", "source probe", "largest source", "margin", "worst tenth", "0 or less", "tiles", "note"]
    caption = (
        "Source probe: share of validation tiles whose source (group) an SVM on the embeddings names, next to the "
        "share of the largest source. Margin: median of the cross-confounder robustness margin (CRoMa; Grisi, van der "
        "Laak and Litjens 2026, arXiv:2607.25497) of the test tiles, from -1 to 1. Above 0 the nearest tiles of the "
        "same class from other sources are nearer than those of other classes from the same source."
    )
    return Section("What the embeddings are organised by", [Table(columns, rows, caption)])


def _corruptions(table: RunTable) -> Section:
    names = list(dict.fromkeys(name for losses in table.losses.values() for name in losses.corruptions))
    rows = []
    for run, losses in table.losses.items():
        for head in losses.heads:
            cells = [number(losses.score.get((head, name))) for name in names]
            rows.append([run, head_name(head), number(100 * losses.mean[head].value, 1), *cells])
    caption = (
        "Mean loss of macro-F1 in points, then macro-F1 on the corrupted test tiles of robustness.csv; intervals are "
        "in compare.csv."
    )
    return Section("Under corruptions", [Table(["run", "head", "mean loss", *names], rows, caption, left=2)])


def _notes(table: RunTable, against: str) -> list[str]:
    by = "the SHA-256 of their pixels" if table.matched.matched_by == "pixels" else "their names (tile_id)"
    notes = [
        f"Test tiles were matched by {by}; every number is computed on rows that all runs share.",
        (
            f"p is that of a sign-flip test over whole {table.resampling.unit}s. Practically equal: the whole interval "
            f"is within {rope_text(table.rope)} either way. Letters join what is practically equal or undecided."
        ),
        (
            "Costs are ordered by the operations of the network, then by the kind of head, never by measured time. "
            "A network whose operations are not known counts as the most expensive."
        ),
        "Intervals hold for these trained networks: other seeds are not in them.",
        (
            f"The margin takes {NEIGHBOURS} neighbours of each kind by cosine distance, among the test tiles of a part "
            f"(at most {MOST_ROWS}, drawn at random). The group is the source, and each tile counts by itself. Tiles "
            "without enough neighbours are left out; the authors' library refuses such data."
        ),
    ]
    if against == BEST:
        notes += [
            (
                "The rule is that of the report: a head must beat the best baseline that needs no training of a "
                "network, and the cheapest that is about as good as the best is used: practically equal, or undecided "
                "and within one standard error of the difference."
            ),
            (
                "The best is chosen on these test rows, which makes its lead look larger than it is. For a comparison "
                "that was planned before, name the run: --against RUN."
            ),
        ]
    return notes
