"""Hold the data of a slide's maps: the input of the tables, the figures and the page."""

import dataclasses
import itertools
from collections.abc import Iterator, Mapping

import numpy as np

from pipeline.evaluation.map_agreement import cohen_kappa, share_agreed
from pipeline.evaluation.metrics import confusion
from pipeline.evaluation.validate import IntArray, NumberArray
from pipeline.inference.outliers import Rejection
from pipeline.maps.cells import ClassMap
from pipeline.maps.ground_truth import GroundTruthScore
from pipeline.storage.embeddings.slide_info import SlideInfo


@dataclasses.dataclass(frozen=True)
class MapData:
    """The maps of all requested heads, on one grid."""

    slide: SlideInfo
    classes: list[str]
    by_head: Mapping[str, ClassMap]
    scores: Mapping[str, GroundTruthScore]
    """Head -> score of all cells of its map against the ground truth; empty without a ground truth."""

    accepted: Mapping[str, GroundTruthScore]
    """Head -> the same without rejected cells; empty without a ground truth or where no tile is rejected."""

    saw_source: bool | None
    """Whether the network was trained on tiles of the slide's source; None: not known."""

    n_tiles: int
    n_unreadable: int
    """Tiles that could not be read and have no prediction."""

    rejection: Rejection | None
    """How outliers were found; None: no tile is rejected."""

    outlier: NumberArray | None
    """(R, C) mean outlier score of each cell divided by the threshold, NaN without tiles; None: as `rejection`."""

    remarks: list[str]
    """Notes for the reader of the page."""

    sources: Mapping[str, str]
    """Name of a file or fact -> its hash or name: what the maps were made from."""

    @property
    def title(self) -> str:
        """The slide, and whether the network was trained on its source."""
        return f"{self.slide.slide}{SOURCE_WORDS[self.saw_source]}"


SOURCE_WORDS = {
    True: " (the network was trained on tiles of this source)",
    False: "",
    None: " (not known whether the network was trained on tiles of this source)",
}
"""Text after the slide's name in every title and file."""


@dataclasses.dataclass(frozen=True)
class PairAgreement:
    """Agreement of two heads' maps over the cells that have a class."""

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
        """Cohen's kappa."""
        return cohen_kappa(self.matrix)


def pairs(maps: MapData) -> Iterator[PairAgreement]:
    """Yield the agreement of each pair of heads."""
    for (head, one), (other, two) in itertools.combinations(maps.by_head.items(), 2):
        used = one.code >= 0  # the cells are those of the tiles, which are the same for all heads
        n = len(maps.classes)
        counts = confusion(one.code[used], two.code[used], n) if used.any() else np.zeros((n, n), np.int64)
        yield PairAgreement(head, other, counts)


def n_classes_predicted(maps: MapData) -> IntArray:
    """Return the number of different classes that the heads predict for each cell, (R, C); 0 for a cell without one."""
    stacked = np.sort(np.stack([one.code for one in maps.by_head.values()]), axis=0)
    n = 1 + (np.diff(stacked, axis=0) > 0).sum(axis=0)
    return np.where(stacked[0] >= 0, n, 0)
