"""Describe one finding of the audit."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from pipeline.runtime.console import list_names

NAMED_SETS = 4
"""Most sets of tiles in a message."""

NAMED_IN_SET = 3
"""Most tiles of a set in a message with several sets."""

Severity = Literal["error", "warning", "note"]


@dataclasses.dataclass(frozen=True)
class Finding:
    """A defect or a property of the data that matters for the results."""

    severity: Severity
    what: str
    tiles: list[str]
    """Names of the tiles."""

    sets: list[list[str]] = dataclasses.field(default_factory=list)
    """The same tiles in sets of duplicates or neighbours."""

    @property
    def line(self) -> str:
        """The finding as one line with the first tiles' names; sets are separated by semicolons."""
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
    """Return `A 3, B 1`: names with their counts, without 0; the first dozen, then the number of the others."""
    return list_names([f"{name} {n}" for name, n in counts.items() if n])
