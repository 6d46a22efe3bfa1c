"""Define the options by which annotated slides are cut into labelled tiles."""

import dataclasses
from typing import TYPE_CHECKING

from pipeline.cli.options import check

if TYPE_CHECKING:
    from pipeline.annotations.labels import CutOptions


@dataclasses.dataclass(frozen=True)
class AnnotationOptions:
    """How annotated slides are cut into tiles."""

    cut_px: int = 224
    """Side in px of the tiles that annotated slides are cut into."""

    cut_mpp: float = 0.5
    """Micrometres per px of these tiles."""

    cut_overlap: float = 0.0
    """Share of a tile's side that the next tile covers again."""

    min_cover: float = 0.75
    """A tile takes a class if this share of it is inside annotations of the class, and at most 1 - this share inside
    annotations of another class."""

    tiles_per_class: int | None = None
    """Most tiles of a class, drawn evenly over slides and annotations. Default: all."""

    predicted_regions: bool = False
    """Also take regions of a map of `predict` that nobody changed in QuPath, as though a person had drawn them."""

    write_tiles: bool = False
    """Store the tiles as PNG files in the run (tiles/). By default later stages read them from the slides."""

    def __post_init__(self) -> None:
        """Check ranges."""
        check(16 <= self.cut_px <= 4096, f"--cut-px {self.cut_px}: 16 to 4096 px")
        check(0.05 <= self.cut_mpp <= 100, f"--cut-mpp {self.cut_mpp}: 0.05 to 100 um/px")
        check(0 <= self.cut_overlap < 1, f"--cut-overlap {self.cut_overlap}: a share from 0 to below 1")
        check(0.5 < self.min_cover <= 1, f"--min-cover {self.min_cover}: a share above 0.5, at most 1")
        check(
            self.tiles_per_class is None or self.tiles_per_class >= 2,
            f"--tiles-per-class {self.tiles_per_class}: at least 2",
        )

    def changed_annotation_options(self) -> list[str]:
        """Return the flags of these options that have another value than their default."""
        fields = dataclasses.fields(AnnotationOptions)
        return ["--" + each.name.replace("_", "-") for each in fields if getattr(self, each.name) != each.default]

    @property
    def cut(self) -> "CutOptions":
        """Return how annotated slides are cut."""
        from pipeline.annotations.labels import CutOptions

        return CutOptions(
            self.cut_px,
            self.cut_mpp,
            self.cut_overlap,
            self.min_cover,
            self.tiles_per_class,
            self.predicted_regions,
        )
