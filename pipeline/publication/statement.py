"""State something about a run with its source, and the parts that several statements are made of."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from pipeline.comparison.scores import Score
from pipeline.markup.number_format import compact, count, head_name, interval, listing, number
from pipeline.names import RunFile
from pipeline.publication.run_facts import RunFacts

MANIFEST, PREDICTIONS, COMPARISON = (
    f"{name}.json" for name in (RunFile.MANIFEST, RunFile.PREDICTIONS, RunFile.COMPARISON)
)
"""Records of a run, as sources name them."""


@dataclasses.dataclass(frozen=True)
class Statement:
    """One sentence or more about a run, and where it comes from."""

    text: str
    sources: tuple[str, ...]
    """Each "<file>: <field>", the file relative to the run folder."""


def names_of(heads: list[str]) -> str:
    """Return the heads as text."""
    return listing([head_name(head) for head in heads])


def of_head(run: RunFacts, head: str, *keys: str) -> Any:
    """Return a value of a head's entry in heads.json."""
    return run.get(RunFile.HEADS, "heads", head, *keys)


def any_score(run: RunFacts, metric: str, split: str) -> Score | None:
    """Return a score of the first head that has it: counts of rows are the same for all heads."""
    return next((score for head in run.heads if (score := run.score(head, metric, split)) is not None), None)


def rows_text(score: Score) -> str:
    """Return tiles and groups of a split."""
    return f"{score.n} tiles" + ("" if score.n_groups is None else f" of {count(score.n_groups, 'group')}")


def value_text(score: Score | None) -> str:
    """Return a score with its interval."""
    return "n/a" if score is None else number(score.value) + interval(score.low, score.high)


def of_training(run: RunFacts, name: str) -> Statement | None:
    """Return a value of model.json; for a plan of its summary in heads.json."""
    file, keys = (RunFile.HEADS, ("training", name)) if run.protocol is not None else (RunFile.MODEL_FACTS, (name,))
    value = run.get(file, *keys)
    return None if value is None else Statement(compact(value), (f"{file}: {'.'.join(keys)}",))


def one_field(run: RunFacts, file: str, *keys: str) -> Statement | None:
    """Return a value of a JSON file in one line."""
    value = run.get(file, *keys)
    return Statement(compact(value) + ".", (f"{file}: {'.'.join(keys)}",)) if value else None


def several_fields(run: RunFacts, file: str, names: Mapping[str, str], *keys: str) -> Statement | None:
    """Return several values of a JSON object with their names; those that are null are left out."""
    found = {name: value for name in names if (value := run.get(file, *keys, name)) is not None}
    if not found:
        return None
    text = "; ".join(f"{names[name]}: {compact(value)}" for name, value in found.items())
    return Statement(f"{text}.", (f"{file}: " + ", ".join(".".join((*keys, name)) for name in found),))


def companions(run: RunFacts, known: Mapping[str, str]) -> Statement | None:
    """Return the sentences of those companion files that the report wrote."""
    outputs = run.get(COMPARISON, "outputs") or {}
    found = {name: text for name, text in known.items() if name in outputs}
    return Statement(" ".join(found.values()), tuple(found)) if found else None
