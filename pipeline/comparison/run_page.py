"""Write the comparison of several runs as a page of Markdown."""

from pipeline.comparison.pairwise_tests import METRIC
from pipeline.comparison.run_table import BEST, RunTable
from pipeline.comparison.verdict import p_text, rope_text
from pipeline.markup.document import Block, Bullets, Document, Note, Section, Table, to_markdown
from pipeline.markup.number_format import (
    NOT_AVAILABLE,
    count,
    head_name,
    interval,
    level_text,
    number,
    points,
    seconds,
)


def to_page(table: RunTable, *, against: str = BEST) -> str:
    """Return compare.md: the verdict, all heads by rank, the runs with their costs, corruptions, and how to read it.

    Args:
        table: of `build_table`.
        against: as given to it.
    """
    sections = [_verdict(table), _ranking(table, against), _runs(table)]
    if table.losses:
        sections.append(_corruptions(table))
    sections.append(Section("How to read this", [Bullets(_notes(table, against))]))
    return to_markdown(Document(f"Comparison of {count(len(table.matched.prices), 'run')}", sections))


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


def _ranking(table: RunTable, against: str) -> Section:
    resampling, rows = table.resampling, []
    seeds = sorted({key[2] for key in table.scores if key[2].startswith(f"{METRIC}[seed")})
    for rank, candidate in enumerate(table.ranked, start=1):
        start = candidate.run, candidate.head
        cells = []
        for metric in (METRIC, "accuracy"):
            score = table.scores[*start, metric]
            cells.append(number(score.value) + interval(score.low, score.high))
        if seeds:
            each = [table.scores[*start, name].value for name in seeds]
            cells.append(f"{number(min(each))} to {number(max(each))}")
        pair = table.pairs.get(start)
        difference = ["-", "-", "-"]
        if pair is not None:
            gap = pair.macro_f1
            difference = [
                points(gap.value) + interval(100 * gap.low, 100 * gap.high, 1),
                p_text(pair.holm_p),
                pair.outcome,
            ]
        cost = number(candidate.gflops, 2)
        rows.append([str(rank), candidate.run, head_name(candidate.head), *cells, *difference, cost])
    reference = f"the same head of {against}" if against != BEST else table.ranked[0].text
    columns = ["rank", "run", "head", "macro-F1", "accuracy", *(["macro-F1 by seed"] if seeds else [])]
    columns += ["difference in points", "p (Holm)", "outcome", "GFLOP a tile"]
    caption = (
        f"{count(len(table.matched.y), 'test row')} ({count(len(set(table.matched.tile.tolist())), 'tile')}), the same "
        f"for all, by macro-F1. In parentheses: {level_text(resampling.level)} bootstrap intervals over "
        f"{count(table.n_units, resampling.unit)}. Difference: macro-F1 less that of {reference}, on the same rows."
    )
    return Section("All heads of all runs", [Table(columns, rows, caption, left=3)])


def _runs(table: RunTable) -> Section:
    rows = []
    for run, price in table.matched.prices.items():
        rows.append(
            [
                run,
                price.arch or NOT_AVAILABLE,
                NOT_AVAILABLE if price.arch is None else price.start_weights or "random weights",
                price.embedded_by or NOT_AVAILABLE,
                *(NOT_AVAILABLE if each is None else str(each) for each in (price.tile_px, price.dimension)),
                number(None if price.parameters is None else price.parameters / 1e6, 1),
                number(price.gflops, 2),
                seconds(price.train_seconds),
            ]
        )
    columns = ["run", "network", "trained from", "embedded by", "tile px", "D", "10^6 parameters", "GFLOP a tile"]
    caption = (
        "D: width of an embedding. GFLOP a tile: floating point operations of the network for all views of a tile. "
        "Training times compare only where device, precision and load of the machine were the same."
    )
    return Section("The runs and their costs", [Table([*columns, "training"], rows, caption, left=4)])


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
            f"p is that of a sign-flip test over whole {table.resampling.unit}s, adjusted for "
            f"{count(len(table.pairs), 'pair')} (Holm). Practically equal: the whole interval is within "
            f"{rope_text(table.rope)} either way."
        ),
        "Costs are ordered by the operations of the network, then by the kind of head, never by measured time.",
        "Intervals hold for these trained networks: other seeds are not in them.",
    ]
    if against == BEST:
        notes += [
            (
                "A candidate is not worse than the best if its outcome is not 'worse'. That does not show that it is "
                "as good: with few groups the interval is wide, and with many pairs p is large."
            ),
            (
                "The best is chosen on these test rows, which makes its lead look larger than it is. For a comparison "
                "that was planned before, name the run: --against RUN."
            ),
        ]
    return notes
