"""State that predictions depend on other tiles of the same group, where they do."""

from collections.abc import Mapping
from typing import Any

RELATIVE = (
    "Transductive: all heads but softmax, and the baselines but the untrained network, also see each feature's "
    "difference from the mean over all tiles of the same group (--relative group). A prediction for a tile depends on "
    "the other tiles of its slide. Where a slide holds mostly one class these heads lose accuracy (table in "
    "the section on baselines)."
)
"""What `--relative group` means for the scores."""

NORMALISED = (
    "Transductive: the network sees tiles whose colours are normalised by source (train --normalise source). White "
    "point and stains of a source are estimated on its own tiles, without labels: those of a test source on test tiles."
)
"""What `--normalise source` means for the scores."""

BASELINES_NORMALISED = (
    "Baselines on colours and texture, and the untrained network, see tiles that are normalised by source, too "
    "(baselines --baseline-normalise source)."
)

LISTED_SOURCES = 10
"""Most sources that keep their colours and are named."""


def transductive(details: Mapping[str, Any]) -> list[str]:
    """Return the notes on features and colours of a tile that depend on the other tiles of its group.

    Args:
        details: of the record of predictions.csv.
    """
    notes = [RELATIVE] if details.get("relative") == "group" else []
    facts, of_baselines = details.get("normalised"), details.get("baselines_normalised")
    if not isinstance(facts, dict):
        return notes + ([BASELINES_NORMALISED] if of_baselines else [])
    texts = [NORMALISED, BASELINES_NORMALISED if of_baselines else "Baselines see the tiles as they are."]
    if unchanged := list(map(str, facts.get("unchanged") or [])):
        more = f" and {len(unchanged) - LISTED_SOURCES} more" if len(unchanged) > LISTED_SOURCES else ""
        names = ", ".join(unchanged[:LISTED_SOURCES]) + more
        texts.append(
            f"These sources have too few tiles, too little tissue or one stain, and keep their colours: {names}."
        )
    return [*notes, " ".join(texts)]
