"""Measure the IoU of maps after 1 to 20 minutes of annotation a slide, and after a round of corrections.

Ten synthetic slides, one of each source, are dealt to training (4), validation (2) and test (4), again for each seed.
All annotations are rough outlines of the known truth, inside windows of 600 px. An outline takes 20 s to find and
classify and 1 s a corner; slides are annotated until the minutes are used up. The test slides' own annotations are the
same in all rounds, and no map of a test slide is ever corrected. A second call continues an interrupted one.

    python reports/annotations/measure.py WORK
"""

import argparse
import contextlib
import csv
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image
from shapely.affinity import translate

from pipeline import demo_slide, extract, fit_heads, predict, prepare, train
from pipeline.annotations.synthetic import rough_outlines, write_annotations
from pipeline.slides.synthetic import CELL_PX, GLASS
from pipeline.storage import atomic
from pipeline.storage.predictions.unlabelled import read_predictions
from pipeline.tiles.synthetic.tiles import CLASSES

HERE = Path(__file__).parent
SIDE, WINDOW = 3600, 12
"""Side of a slide in px; side of a window in cells of the truth."""

N_TRAIN, N_VAL = 4, 2
"""Slides that are trained on and validated on; the other four are tested."""

FIND_S, CORNER_S = 20, 1
"""Seconds to find a region and choose its class, and for each corner of its outline."""

TILE_PX, TILE_MPP, TILE_LEVEL0 = 48, 0.99, 96
SEEN = 24_000
"""Tiles that each network sees in training, so that more annotations do not mean a longer training."""

Outline = tuple[int, Any]
"""A class code, and a polygon in level-0 px."""


def done(code: int) -> None:
    """Stop where a command failed."""
    if code not in (0, 3):
        raise SystemExit(f"a command ended with code {code}")


def truth_of(slide: Path) -> np.ndarray:
    """Return the class of each cell of the truth, (R, C); -1 on glass."""
    code = np.asarray(Image.open(slide.with_name(f"{slide.stem}-truth.png"))).astype(int)
    return np.where(code == GLASS, -1, code)


def candidates(code: np.ndarray) -> list[Outline]:
    """Return outlines of the largest region of each class in each window, the largest first."""
    found = []
    for row in range(0, len(code), WINDOW):
        for column in range(0, code.shape[1], WINDOW):
            part = code[row : row + WINDOW, column : column + WINDOW]
            for value, shape in rough_outlines(part, cell=CELL_PX, most=1):
                found.append((value, translate(shape, column * CELL_PX, row * CELL_PX)))
    return sorted(found, key=lambda outline: -outline[1].area)


def seconds(outline: Outline) -> float:
    """Return the time that an outline takes to draw."""
    return FIND_S + CORNER_S * (len(outline[1].exterior.coords) - 1)


def balanced(slides: Sequence[Path], minutes: float) -> dict[Path, list[Outline]]:
    """Return the outlines that a person draws in some minutes a slide: always of the class with the fewest so far."""
    counts: Counter[int] = Counter()
    drawn: dict[Path, list[Outline]] = {}
    for slide in slides:
        left, budget = candidates(truth_of(slide)), 60 * minutes
        drawn[slide] = []
        while affordable := [outline for outline in left if seconds(outline) <= budget]:
            chosen = min(affordable, key=lambda outline: counts[outline[0]])
            left = [outline for outline in left if outline is not chosen]
            budget -= seconds(chosen)
            counts[chosen[0]] += 1
            drawn[slide].append(chosen)
    return drawn


def corrections(run: Path, slide: Path, minutes: float) -> list[Outline]:
    """Return outlines of the largest regions where the map of a run is wrong, until the minutes are used up."""
    truth = truth_of(slide)
    table = read_predictions(run / "maps" / slide.stem / "predictions.csv")
    mapped = np.full(truth.shape, -1)
    for x, y, name in zip(table["x"], table["y"], table["predicted"], strict=True):
        rows, columns = (slice(round(v / CELL_PX), round((v + TILE_LEVEL0) / CELL_PX)) for v in (y, x))
        mapped[rows, columns] = CLASSES.index(name)
    drawn, budget = [], 60 * minutes
    for outline in candidates(np.where((mapped >= 0) & (mapped != truth), truth, -1)):
        if seconds(outline) <= budget:
            budget -= seconds(outline)
            drawn.append(outline)
    return drawn


class Experiment:
    """The ten slides as a seed deals them, and the runs on them."""

    def __init__(self, work: Path, seed: int) -> None:
        self.folder, self.seed = work / f"seed{seed}", seed
        self.folder.mkdir(parents=True, exist_ok=True)
        order = np.random.default_rng(seed).permutation(np.arange(1, 11))
        self.slides = [work / "slides" / f"s{source}.tif" for source in order]
        self.learning, self.tested = self.slides[: N_TRAIN + N_VAL], self.slides[N_TRAIN + N_VAL :]
        for source, slide in zip(order, self.slides, strict=True):
            words = ["--side", str(SIDE), "--source", str(source), "--seed", str(source)]
            done(demo_slide.main([*words, "--out", str(slide)]))
        self.of_test = self.files(balanced(self.tested, 1), "test")

    def files(self, drawn: dict[Path, list[Outline]], name: str) -> dict[Path, list[str]]:
        """Write outlines of slides; return slide -> its file; slides without an outline have none."""
        found = {}
        for slide, outlines in drawn.items():
            if outlines:
                file = self.folder / f"{slide.stem}-{name}.geojson"
                write_annotations(file, outlines, list(CLASSES))
                found[slide] = [file.name]
        return found

    def learnt(self, name: str, files: dict[Path, list[str]]) -> Path:
        """Return a run that learnt from annotation files."""
        run, table = self.folder / f"run-{name}", self.folder / f"slides-{name}.csv"
        lines = ["slide,annotations,split"]
        for i, slide in enumerate(self.slides):
            split = "train" if i < N_TRAIN else "val" if i < N_TRAIN + N_VAL else "test"
            lines.append(f"../slides/{slide.name},{';'.join((files | self.of_test)[slide])},{split}")
        atomic.write_text(table, "\n".join(lines) + "\n")
        words = ["--run", str(run), "--seed", str(self.seed)]
        machine = ["--device", "cpu", "--threads", "1", "--workers", "0"]
        cut = ["--cut-px", str(TILE_PX), "--cut-mpp", str(TILE_MPP)]
        done(prepare.main([*words, "--data", str(table), *cut, "--workers", "1"]))
        n_train = int((pd.read_csv(run / "manifest.csv")["split"] == "train").sum())
        training = ["--arch", "resnet10", "--recipe", "quick", "--tile-px", str(TILE_PX)]
        done(train.main([*words, *training, "--epochs", str(max(4, round(SEEN / n_train))), *machine]))
        done(extract.main([*words, *machine]))
        done(fit_heads.main([*words, "--heads", "svm", "--no-baselines", "--threads", "1"]))
        return run

    def ious(self, run: Path, slides: Sequence[Path]) -> list[float]:
        """Map slides by the softmax head; return the mean IoU over the classes of each slide."""
        found = []
        for slide in slides:
            words = ["--run", str(run)]
            done(extract.main([*words, "--slide", str(slide), "--device", "cpu", "--threads", "1", "--workers", "0"]))
            embedded, truth = run / "slides" / slide.stem / f"{slide.stem}.h5", f"{slide.stem}-truth.png"
            words += ["--embeddings", str(embedded), "--truth", str(slide.with_name(truth)), "--head", "softmax"]
            done(predict.main([*words, "--geojson", "none"]))
            table = pd.read_csv(run / "maps" / slide.stem / "iou.csv")
            found.append(float(table.loc[(table["n_cells"] > 0) & table["class"].isin(CLASSES), "iou"].mean()))
        return found

    def rows(self) -> list[list[object]]:
        """Return one row for each round and test slide."""
        rounds = {f"{n} min": self.files(balanced(self.learning, n), f"{n}min") for n in (1, 5, 10, 20)}
        first = self.learnt("5min", rounds["5 min"])
        self.ious(first, self.learning)
        fixes = self.files({slide: corrections(first, slide, 5) for slide in self.learning}, "corrected")
        rounds["5 min and 5 min of corrections"] = {
            slide: [*files, *fixes.get(slide, [])] for slide, files in rounds["5 min"].items()
        }
        found: list[list[object]] = []
        for name, files in rounds.items():
            run = self.learnt("corrected" if "and" in name else name.replace(" ", ""), files)
            n_outlines = sum(
                len(atomic.from_json(self.folder / file)["features"]) for own in files.values() for file in own
            )
            tiles = pd.read_csv(run / "manifest.csv")["split"].value_counts()
            for slide, iou in zip(self.tested, self.ious(run, self.tested), strict=True):
                found.append([self.seed, name, n_outlines, tiles["train"], tiles["val"], slide.stem, round(iou, 4)])
        return found


def main() -> None:
    """Measure all seeds and write maps.csv."""
    parser = argparse.ArgumentParser()
    parser.add_argument("work", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    args = parser.parse_args()
    rows = []
    with contextlib.suppress(KeyboardInterrupt):
        for seed in args.seeds:
            rows += Experiment(args.work, seed).rows()
    with (HERE / "maps.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["seed", "annotated", "outlines", "train_tiles", "val_tiles", "test_slide", "mean_iou"])
        writer.writerows(rows)


if __name__ == "__main__":
    main()
