"""Tile slides and large images: find the tissue and write the coordinates of its tiles, no pixels.

Reads slides (formats of OpenSlide, TIFF, large PNG and JPEG; also folders of slides or a CSV `slide[,mpp][,group]`) and
the tile size and scale of the run's model. Writes slides/<slide>/grid.csv into the run folder, with a thumbnail and an
overlay that shows the tiles and the pen marks. slides/slides.csv lists all slides of the run.

    python -m pipeline.tile slide.svs --run reports/mine
    python -m pipeline.tile slides/ --run reports/mine --stride 75 --min-tissue 0.5
"""

import dataclasses
import functools
from pathlib import Path

import tyro

from pipeline.cli.command import Command
from pipeline.cli.options import Common, check
from pipeline.cli.slide_options import SlidesOptions, chosen_slides


@dataclasses.dataclass(frozen=True)
class TileOptions:
    """Slides, and how they are tiled."""

    slides: tyro.conf.Positional[tuple[str, ...]] = ()
    """Files, folders that are searched for slides, or .csv files with the columns slide and, if wanted, mpp and
    group."""

    model: Path | None = None
    """Default: model.safetensors of the run; in a plan, of the part that held the slide's source out."""

    tile_px: int | None = None
    """Side of a tile in px after it is resized for the network; default: the model's."""

    mpp_target: float | None = None
    """Micrometres per pixel of a tile after it is resized for the network; default: the model's."""

    stride: int | None = None
    """From one tile to the next, in px of the slide's full resolution; default: by --overlap."""

    overlap: float = 0.0
    """Share of a tile's side that the next tile covers again."""

    threshold: float | None = None
    """Saturation, 0 to 1, from which on a pixel of the thumbnail is tissue; default: Otsu's threshold."""

    min_tissue: float = 0.25
    """Least share of tissue of a tile; 0 takes all tiles."""

    keep_ink: bool = False
    """Count pen marks as tissue, for stains in the colours of ink."""

    def __post_init__(self) -> None:
        """Check ranges."""
        check(self.tile_px is None or 16 <= self.tile_px <= 1024, f"--tile-px {self.tile_px}: 16 to 1024 px")
        check(self.mpp_target is None or self.mpp_target > 0, f"--mpp-target {self.mpp_target}: must be above 0")
        check(self.stride is None or self.stride >= 1, f"--stride {self.stride}: at least 1 px")
        check(0 <= self.overlap < 1, f"--overlap {self.overlap}: a share from 0 to below 1")
        check(self.stride is None or not self.overlap, "--stride and --overlap exclude one another: give one")
        check(self.threshold is None or 0 <= self.threshold <= 1, f"--threshold {self.threshold}: 0 to 1")
        check(0 <= self.min_tissue <= 1, f"--min-tissue {self.min_tissue}: a share from 0 to 1")


def run(common: Common, options: TileOptions, slides: SlidesOptions) -> int:
    """Tile every slide; return the exit code."""
    from pipeline.network.extraction.slide_model import slide_model
    from pipeline.network.model_file import load_model
    from pipeline.network.preprocess import Preprocess
    from pipeline.slides.batch import each_slide
    from pipeline.slides.find import SlideEntry
    from pipeline.slides.grid import Tiling
    from pipeline.slides.outcomes import Outcome
    from pipeline.slides.tiling import check_scale, resolve_scale, tile_slide

    @functools.cache
    def preprocess(path: Path) -> Preprocess:
        return load_model(path).preprocess

    def work(entry: SlideEntry) -> Outcome:
        trained = preprocess(slide_model(common.run, entry, model=options.model).path)
        px, mpp = resolve_scale(trained.size, trained.mpp, tile_px=options.tile_px, mpp_target=options.mpp_target)
        check_scale(trained.size, trained.mpp, tile_px=px, tile_mpp=mpp, force=common.force)
        tiling = Tiling(
            px, mpp, options.stride, options.overlap, options.threshold, options.min_tissue, keep_ink=options.keep_ink
        )
        grid = tile_slide(common.run, entry, tiling, force=common.force, restart=common.restart)
        return Outcome(entry.name, tiles=len(grid.table))

    return each_slide(common.run, chosen_slides(options.slides, slides, force=common.force), work, stage="tile")


@dataclasses.dataclass(frozen=True)
class TileCommandOptions:
    """Options of the command by stage."""

    tile: TileOptions
    slides: SlidesOptions


main = Command(
    "pipeline.tile",
    __doc__,
    TileCommandOptions,
    lambda common, options: run(common, options.tile, options.slides),
    access="begin",
    shares=lambda options: True,
)
"""Entry point of `python -m pipeline.tile`."""


if __name__ == "__main__":
    raise SystemExit(main())
