"""What is known of a slide's maps: the input of the tables, the figures and the page."""

import dataclasses
import itertools
from collections.abc import Iterator, Mapping

import numpy as np

from pipeline.evaluation.map_agreement import cohen_kappa, share_agreed
from pipeline.evaluation.metrics import confusion
from pipeline.evaluation.validate import IntArray
from pipeline.maps.cells import ClassMap
from pipeline.maps.ground_truth import TruthScore
from pipeline.storage.embeddings.slide_info import SlideInfo


@dataclasses.dataclass(frozen=True)
class Maps:
    """The maps of all heads that were asked for, on one grid."""

    slide: SlideInfo
    classes: list[str]
    by_head: Mapping[str, ClassMap]
    truth: Mapping[str, TruthScore]
    """Head -> how its map stands against the truth; empty where none is known."""

    saw_source: bool | None
    """Whether the network was trained on tiles of the slide's source; None: not known."""

    n_tiles: int
    n_unreadable: int
    """Of them: no head says anything of these."""

    remarks: list[str]
    """What else a reader must know."""

    sources: Mapping[str, str]
    """File or fact -> hash or name: where the maps come from."""

    @property
    def title(self) -> str:
        """The slide, and what the network knew of it."""
        return f"{self.slide.slide}{SOURCE_WORDS[self.saw_source]}"


SOURCE_WORDS = {
    True: " (the network was trained on tiles of this source)",
    False: "",
    None: " (not known whether the network was trained on tiles of this source)",
}
"""What stands behind the slide's name in every title and file."""


@dataclasses.dataclass(frozen=True)
class PairAgreement:
    """How far two heads' maps agree, over the cells that have a class."""

    head: str
    other: str
    matrix: IntArray
    """(K, K) cells by the class of the first and of the second."""

    @property
    def share(self) -> float:
        """Share of cells with the same class."""
        return share_agreed(self.matrix)

    @property
    def kappa(self) -> float:
        """Cohen's."""
        return cohen_kappa(self.matrix)


def pairs(maps: Maps) -> Iterator[PairAgreement]:
    """Yield the agreement of each pair of heads."""
    for (head, one), (other, two) in itertools.combinations(maps.by_head.items(), 2):
        used = one.code >= 0  # the cells are those of the tiles, which are the same for all heads
        yield PairAgreement(head, other, confusion(one.code[used], two.code[used], len(maps.classes)))


def classes_named(maps: Maps) -> IntArray:
    """Return how many different classes the heads name for each cell, (R, C); 0 where there is none."""
    stacked = np.sort(np.stack([found.code for found in maps.by_head.values()]), axis=0)
    n = 1 + (np.diff(stacked, axis=0) > 0).sum(axis=0)
    return np.where(stacked[0] >= 0, n, 0)
