"""Make a synthetic slide with known tissue, to try maps and to score them.

Writes a pyramidal TIFF of any size (0.495 um/px) with the stain of one of the demo's ten sources, and its ground truth
<name>-truth.png and <name>-truth.json. A side of 40,000 px takes some minutes and 700 MB of disk.

    python -m pipeline.demo_slide --side 8000 --source 3
"""

import dataclasses
from pathlib import Path

from pipeline.cli.command import command_without_run
from pipeline.cli.options import check
from pipeline.errors import EXIT_OK
from pipeline.runtime.console import log


@dataclasses.dataclass(frozen=True)
class DemoSlideOptions:
    """Content and place of the slide."""

    out: Path | None = None
    """The TIFF. Default: data/demo-slides/CRC-Prim-HE-<source>_demo<side>-seed<seed>.tif; a run on demo tiles reads the
    source from this name."""

    side: int = 8000
    """Side of the slide in px."""

    source: int = 3
    """Source of the stain and the focus, 1 to 10, as in the demo tiles."""

    seed: int = 0
    """Seed of the map and the textures."""

    annotations: int = 0
    """Also draw <name>.geojson: rough outlines of at most this many regions of each class."""

    def __post_init__(self) -> None:
        """Check ranges."""
        check(600 <= self.side <= 200_000, f"--side {self.side}: 600 to 200000 px")
        check(1 <= self.source <= 10, f"--source {self.source}: 1 to 10")
        check(self.seed >= 0, f"--seed {self.seed}: a number from 0 up is needed")
        check(self.annotations >= 0, f"--annotations {self.annotations}: a number from 0 up is needed")
        check(self.out is None or self.out.suffix == ".tif", f"--out {self.out}: a name that ends in .tif is needed")


def run(options: DemoSlideOptions) -> int:
    """Write the slide; return the exit code."""
    import numpy as np

    from pipeline.annotations.synthetic import rough_outlines, write_annotations
    from pipeline.slides.synthetic import CELL_PX, GLASS, DemoSlide, class_map, make_demo_slide, truth_paths
    from pipeline.tiles.synthetic.tiles import CLASSES

    name = f"CRC-Prim-HE-{options.source:02d}_demo{options.side}-seed{options.seed}.tif"
    path = options.out or Path("data") / "demo-slides" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    slide = DemoSlide(side=options.side, source=options.source, seed=options.seed)
    made = make_demo_slide(path, slide)
    outlines = path.with_suffix(".geojson")
    if options.annotations and (made or not outlines.is_file()):  # else they can be corrected by the user
        truth = class_map(slide).astype(int)
        code = np.where(truth == GLASS, -1, truth)
        write_annotations(outlines, rough_outlines(code, cell=CELL_PX, most=options.annotations), list(CLASSES))
    log.info(f"demo_slide: {'' if made else 'current, '}{path}, ground truth {truth_paths(path)[0].name}")
    return EXIT_OK


main = command_without_run("pipeline.demo_slide", __doc__, DemoSlideOptions, run)
"""Entry point of `python -m pipeline.demo_slide`."""


if __name__ == "__main__":
    raise SystemExit(main())
