"""Write the section on robustness: how much macro-F1 each head loses on corrupted test tiles."""

from pipeline.comparison.report_data import ReportData
from pipeline.comparison.robustness import Estimate, Losses, measure_losses
from pipeline.figures.robustness import draw_losses
from pipeline.markup.document import EmptySection, Figure, Note, Section, Table, Text
from pipeline.markup.number_format import count, head_name, interval, level_text, listing, number, points
from pipeline.names import RunFile
from pipeline.storage.predictions.corrupted import NONE
from pipeline.tiles.corruptions import CORRUPTIONS

FIGURE = "robustness.png"
"""The figure that this module draws."""

LIMITS = (
    "Each corruption has one fixed strength, chosen before any result was seen, and is computed, not scanned. The "
    "losses rank the heads under these changes; they do not predict a new scanner or laboratory. The heads share one "
    "network, so that most of a loss is the network's; baselines have none."
)


def section(data: ReportData) -> Section | EmptySection:
    """Return the section; its figure is drawn into the run's folder."""
    title = "Robustness"
    corrupted = data.corrupted
    if corrupted is None:
        reason = data.files.missing.get(RunFile.ROBUSTNESS, "not there")
        return EmptySection(title, f"robustness.csv was left out ({reason}): python -m pipeline.robustness makes it.")
    losses = measure_losses(corrupted, data.predictions.classes, data.resampling)
    level = level_text(data.resampling.level)
    heads = [head_name(head) for head in losses.heads]
    draw_losses(
        data.run / "figures" / FIGURE,
        {
            head_name(head): [_in_points(losses.loss[head, name]) for name in losses.corruptions]
            for head in losses.heads
        },
        corruptions=[name.replace("_", " ") for name in losses.corruptions],
        level=level,
    )
    first = corrupted[(corrupted["head"] == losses.heads[0]) & (corrupted["corruption"] == NONE)]
    n_seeds = first["seed"].nunique()
    over = f", each under {count(n_seeds, 'seed')}" if n_seeds > 1 else ""
    intervals = (
        f"{level} intervals from {data.resampling.n_draws} paired resamples of {count(losses.n_units, losses.unit)}"
        if losses.n_units > 1
        else f"no intervals, because all tiles are of one {losses.unit}"
    )
    caption = (
        f"{data.bias_note}Macro-F1 on {count(first['tile_id'].nunique(), 'test tile')}{over}, uncorrupted and under "
        f"each corruption, and the loss in points ({intervals}). All heads predict from the same pixels."
    )
    rows = [
        ["none", "uncorrupted tiles", *(number(losses.score[head, NONE]) for head in losses.heads)],
        *(
            [
                name.replace("_", " "),
                CORRUPTIONS[name].description if name in CORRUPTIONS else "n/a",
                *(f"{number(losses.score[head, name])}; {_text(losses.loss[head, name])}" for head in losses.heads),
            ]
            for name in losses.corruptions
        ),
        ["mean loss", "", *(_text(losses.mean[head]) for head in losses.heads)],
    ]
    figure = Figure(
        f"figures/{FIGURE}",
        "Macro-F1 lost by each head under each corruption",
        f"{data.bias_note}Macro-F1 on the uncorrupted tiles minus macro-F1 on the corrupted ones. Points left of 0 "
        "gained.",
    )
    table = Table(["corruption", "what it does", *heads], rows, caption, left=2)
    return Section(title, [Note(headline(losses)), figure, table, Text(LIMITS)])


def headline(losses: Losses) -> str:
    """Return the sentence on the head with the smallest mean loss, and on whether the next one differs."""
    order = losses.ranking
    each = listing([f"{head_name(head)} {points(losses.mean[head].value)}" for head in order])
    start = f"Mean loss of macro-F1 in points over {count(len(losses.corruptions), 'corruption')}: {each}."
    if losses.lead is None:
        return start
    first, second = head_name(order[0]), head_name(order[1])
    if losses.code == "no_interval":
        return f"{start} {first} loses least, but one {losses.unit} cannot show whether by chance."
    if losses.code == "too_few_units":
        return f"{start} Undecided which head loses least: {count(losses.n_units, losses.unit)} are too few."
    if losses.code == "decided":
        return f"{start} {first} loses least; {second} loses {_text(losses.lead)} points more."
    return f"{start} Undecided whether {first} or {second} loses less: they differ by {_text(losses.lead)} points."


def _in_points(estimate: Estimate) -> tuple[float, float, float]:
    return 100 * estimate.value, 100 * estimate.low, 100 * estimate.high


def _text(estimate: Estimate) -> str:
    """Return an estimate in points with its interval."""
    value, low, high = (round(each, 1) + 0.0 for each in _in_points(estimate))
    return f"{number(value, 1)}{interval(low, high, 1)}"
