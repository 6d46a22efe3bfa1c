"""Cut slides and large images into a grid of tiles: only coordinates are written, no pixels.

Reads slides (what OpenSlide knows, TIFF, large PNG and JPEG; a folder or a CSV `slide[,mpp][,group]` of them) and the
run's model, whose tile size and scale are taken. Writes slides/<slide>/grid.csv into the run folder, a thumbnail, and
an overlay that shows which tiles were taken for tissue.

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
    """Which slides, and how they are cut."""

    slides: tyro.conf.Positional[tuple[str, ...]] = ()
    """Files, folders of slides, or .csv files with the columns slide and, if wanted, mpp and group."""

    model: Path | None = None
    """Default: model.safetensors of the run; of a plan, that of the part that held the slide's source out."""

    tile_px: int | None = None
    """Side of a tile in px as the network sees it; default: the model's."""

    mpp_target: float | None = None
    """Micrometres per pixel as the network sees it; default: the model's."""

    stride: int | None = None
    """From one tile to the next, in px of the slide's full resolution; default: by --overlap."""

    overlap: float = 0.0
    """Share of a tile's side that the next one covers again."""

    threshold: float | None = None
    """Saturation, 0 to 1, from which on a pixel of the thumbnail is tissue; default: Otsu's."""

    min_tissue: float = 0.25
    """Least share of tissue of a tile; 0 takes all."""

    def __post_init__(self) -> None:
        """Check ranges."""
        check(self.tile_px is None or 16 <= self.tile_px <= 1024, f"--tile-px {self.tile_px}: 16 to 1024 px")
        check(self.mpp_target is None or self.mpp_target > 0, f"--mpp-target {self.mpp_target}: must be above 0")
        check(self.stride is None or self.stride >= 1, f"--stride {self.stride}: at least 1 px")
        check(0 <= self.overlap < 1, f"--overlap {self.overlap}: a share from 0 to below 1")
        check(self.stride is None or not self.overlap, "--stride and --overlap say the same: give one of them")
        check(self.threshold is None or 0 <= self.threshold <= 1, f"--threshold {self.threshold}: 0 to 1")
        check(0 <= self.min_tissue <= 1, f"--min-tissue {self.min_tissue}: a share from 0 to 1")


def run(common: Common, options: TileOptions, slides: SlidesOptions) -> int:
    """Cut every slide; return the exit code."""
    from pipeline.network.extraction.slide_model import slide_model
    from pipeline.network.model_file import Preprocess, load_model
    from pipeline.slides.batch import Outcome, each_slide
    from pipeline.slides.find import SlideEntry
    from pipeline.slides.tiling import Tiling, check_scale, resolve_scale, tile_slide

    @functools.cache
    def preprocess(path: Path) -> Preprocess:
        return load_model(path).preprocess

    def work(entry: SlideEntry) -> Outcome:
        seen = preprocess(slide_model(common.run, entry, model=options.model).path)
        px, mpp = resolve_scale(seen.size, seen.mpp, tile_px=options.tile_px, mpp_target=options.mpp_target)
        check_scale(seen.size, seen.mpp, tile_px=px, tile_mpp=mpp, force=common.force)
        tiling = Tiling(px, mpp, options.stride, options.overlap, options.threshold, options.min_tissue)
        grid = tile_slide(common.run, entry, tiling, force=common.force, restart=common.restart)
        return Outcome(entry.name, tiles=len(grid.table))

    code, _ = each_slide(chosen_slides(options.slides, slides), work, stage="tile")
    return code


@dataclasses.dataclass(frozen=True)
class TileCommandOptions:
    """Options of the command by stage."""

    tile: TileOptions
    slides: SlidesOptions


main = Command(
    "pipeline.tile", __doc__, TileCommandOptions, lambda common, o: run(common, o.tile, o.slides), access="begin"
)
"""Entry point of `python -m pipeline.tile`."""


if __name__ == "__main__":
    raise SystemExit(main())
