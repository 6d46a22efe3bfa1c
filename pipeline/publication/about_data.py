"""State what the records hold about the data and its splits.

Nothing is invented: a statement is a value of a record, or follows from it. None: the run's records hold nothing of it.
"""

from pipeline.comparison.sections.overview import PROTOCOLS
from pipeline.markup.number_format import compact, count, listing, number
from pipeline.names import SPLITS, RunFile
from pipeline.publication.run_facts import RunFacts
from pipeline.publication.statement import (
    MANIFEST,
    PREDICTIONS,
    Statement,
    any_score,
    rows_text,
    several_fields,
)


def data(run: RunFacts) -> Statement | None:
    """Return name, licence and credit of the data set."""
    return several_fields(run, MANIFEST, {"dataset": "data set", "licence": "licence", "credit": "credit"}, "details")


def excluded(run: RunFacts) -> Statement | None:
    """Return how many tiles were found and how many could not be read."""
    n, bad = run.get(RunFile.AUDIT, "n_tiles"), run.get(RunFile.AUDIT, "n_unreadable")
    if n is None:
        return None
    return Statement(
        f"{count(n, 'tile')} found, {bad} of them unreadable and left out.",
        (f"{RunFile.AUDIT}: n_tiles, n_unreadable",),
    )


def missing(run: RunFacts) -> Statement | None:
    """Return how tiles without pixels are handled."""
    n = run.get(PREDICTIONS, "details", "n_skipped")
    if n is None:
        return None
    text = f"Tiles that cannot be read are left out and listed; nothing is imputed. Left out: {n}."
    return Statement(text, (f"{PREDICTIONS}: details.n_skipped",))


def resolution(run: RunFacts) -> Statement | None:
    """Return the scale of the tiles."""
    mpp = run.get(MANIFEST, "details", "mpp")
    return mpp and Statement(f"Tiles have {number(mpp)} um per px.", (f"{MANIFEST}: details.mpp",))


def classes(run: RunFacts) -> Statement | None:
    """Return the names of the classes."""
    names = run.get(RunFile.HEADS, "classes")
    return names and Statement(f"{count(len(names), 'class')}: {listing(names)}.", (f"{RunFile.HEADS}: classes",))


def assignment(run: RunFacts) -> Statement | None:
    """Return how tiles were assigned to the splits, and the plan of folds and seeds."""
    protocol, chosen = run.get(MANIFEST, "details", "protocol"), run.get(MANIFEST, "options")
    if protocol is None:
        return None
    text, sources = f"Protocol {protocol}: {PROTOCOLS.get(protocol, protocol)}.", [f"{MANIFEST}: details.protocol"]
    if run.protocol is not None:
        plan = run.protocol
        text += f" {count(plan.n_folds, 'fold')}, {count(len(plan.seeds), 'seed')}, {plan.n_inner} inner networks."
        sources.append(f"{RunFile.PROTOCOL}: folds, seeds, inner")
    elif chosen and chosen.get("fractions"):
        text += (
            f" Shares of train, validation and test: {compact(chosen['fractions'])}. Seed {run.get(MANIFEST, 'seed')}."
        )
        sources.append(f"{MANIFEST}: options.fractions, seed")
    return Statement(text, tuple(sources))


def disjoint(run: RunFacts) -> Statement | None:
    """Return the level at which the splits are disjoint."""
    protocol = run.get(MANIFEST, "details", "protocol")
    levels = {
        "random": "Tile: tiles of one group can be in several splits, so that scores are biased upwards.",
        "grouped": "Group (slide or patient, as given with the data): no group is in two splits.",
        "logo": "Group (slide or patient, as given with the data): no group is in two splits of a part.",
        "given": "As given with the data; the report names test groups that other splits share.",
    }
    return Statement(levels[protocol], (f"{MANIFEST}: details.protocol",)) if protocol in levels else None


def sizes(run: RunFacts) -> Statement | None:
    """Return tiles and groups of each split."""
    found = [(split, any_score(run, "accuracy", split)) for split in SPLITS]
    parts = [f"{split} {rows_text(score)}" for split, score in found if score is not None]
    return Statement(f"Rows: {', '.join(parts)}.", (f"{RunFile.COMPARISON}: n, n_groups",)) if parts else None


def class_counts(run: RunFacts) -> Statement | None:
    """Return the tiles of each class in each split."""
    parts = []
    for split in SPLITS:
        found = [(name, any_score(run, f"recall[{name}]", split)) for name in run.get(RunFile.HEADS, "classes") or ()]
        counts = [f"{name} {score.n}" for name, score in found if score is not None]
        parts += [f"{split}: {', '.join(counts)}"] if counts else []
    return (
        Statement(f"Tiles by class: {'; '.join(parts)}.", (f"{RunFile.COMPARISON}: n of recall[class]",))
        if parts
        else None
    )
