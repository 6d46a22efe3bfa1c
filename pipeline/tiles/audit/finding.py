"""Describe one finding of the audit."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from pipeline.runtime.console import list_names

NAMED_SETS = 4
"""How many sets of tiles one message lists before it counts the rest."""

NAMED_IN_SET = 3
"""How many tiles of each of several sets it lists."""

Severity = Literal["error", "warning", "note"]


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing that a reader of the results must know."""

    severity: Severity
    what: str
    tiles: list[str]
    """All tiles concerned."""

    sets: list[list[str]] = dataclasses.field(default_factory=list)
    """The same tiles by what belongs together, for duplicates and neighbours."""

    @property
    def line(self) -> str:
        """The finding as one line with the first tiles' names; sets are parted by semicolons."""
        if len(self.sets) > 1:
            shown = [
                ", ".join(one[:NAMED_IN_SET]) + (" ..." if len(one) > NAMED_IN_SET else "")
                for one in self.sets[:NAMED_SETS]
            ]
            rest = len(self.sets) - NAMED_SETS
            return f"{self.what}: {'; '.join(shown)}" + (f" and {rest} more" if rest > 0 else "")
        return self.what + (f": {list_names(self.tiles)}" if self.tiles else "")


def finding_of_sets(severity: Severity, what: str, sets: list[list[str]]) -> Finding:
    """Return a finding on several sets of tiles."""
    return Finding(severity, what, [tile for one in sets for tile in one], sets)


def counted(counts: Mapping[Any, int]) -> str:
    """Return `A 3, B 1`: names with their counts, those that are not 0; the first dozen, then a number."""
    return list_names([f"{name} {n}" for name, n in counts.items() if n])
