"""Measure the IoU of maps after 1 to 20 minutes of annotation a slide, and after a round of corrections.

Ten synthetic slides, one of each source, are dealt to learning (6) and test (4), again for each seed. All annotations
are rough outlines of the known truth, inside windows of 600 px. An outline takes 20 s to find and classify and 1 s a
corner; a slide is annotated until its minutes are used up. Corrections are outlines of the truth where the map of a
learning slide is wrong. No map of a test slide is ever corrected.

Outlines go through GeoJSON files, the rules of `prepare` for tiles, the network's training step and the maps' scores.
All squares of tissue are mapped; finding tissue, validation and the choice of an epoch are left out. A second call
continues an interrupted one.

    python reports/annotations/measure.py WORK
"""

import argparse
import csv
import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image
from shapely.affinity import translate

from pipeline import demo_slide
from pipeline.annotations.geojson import read_annotations
from pipeline.annotations.labels import covers, labelled
from pipeline.annotations.regions import combine
from pipeline.annotations.synthetic import rough_outlines, write_annotations
from pipeline.evaluation.map_agreement import mean_jaccard
from pipeline.maps.cells import class_map, grid_of
from pipeline.maps.ground_truth import GroundTruth, score_map
from pipeline.network.distributed import Ranks
from pipeline.network.preprocess import Preprocess
from pipeline.network.resnet import build_network
from pipeline.network.training.recipe import recipe_for
from pipeline.network.training.step import TrainStep
from pipeline.slides.grid import Tiling, squares_of
from pipeline.slides.openslide_reader import open_slide
from pipeline.slides.synthetic import CELL_PX, GLASS
from pipeline.storage.embeddings.slide_info import SlideInfo
from pipeline.tiles.synthetic.tiles import CLASSES

SIDE, WINDOW = 3600, 12
"""Side of a slide in px; side of a window in cells of the truth."""

N_LEARNING = 6
FIND_S, CORNER_S = 20, 1
"""Seconds to find a region and choose its class, and for each corner of its outline."""

TILE_PX, TILE_MPP, TILE_LEVEL0, MPP = 48, 0.99, 96, 0.495
EPOCHS, STEPS, BATCH = 10, 20, 16
"""Equal for all networks, so that more annotations do not mean a longer training."""

ROUNDS = {"1": (1, 0), "5": (5, 0), "5 and 5 of corrections": (5, 5), "10": (10, 0), "20": (20, 0)}
"""Minutes a slide -> minutes of annotation before a map was seen, and of corrections."""

COLUMNS = ("seed", "minutes", "outlines", "tiles", "test_slide", "mean_iou")

Outline = tuple[int, Any]
"""A class code, and a polygon in level-0 px."""


@dataclasses.dataclass(frozen=True)
class Squares48:
    """The squares of a slide with tissue at their centre."""

    path: Path
    xy: np.ndarray
    """(N, 2) level-0 px."""

    pixels: np.ndarray
    """(N, 48, 48, 3) uint8."""

    truth: np.ndarray
    """(R, C) class of each cell of the truth; -1 on glass."""


def make_slide(work: Path, source: int) -> Squares48:
    """Return a slide's squares; draws the slide and reads the squares the first time."""
    path, kept = work / f"s{source}.tif", work / f"s{source}.npz"
    if demo_slide.main(["--side", str(SIDE), "--source", str(source), "--seed", str(source), "--out", str(path)]):
        raise SystemExit("no slide")
    code = np.asarray(Image.open(path.with_name(f"s{source}-truth.png"))).astype(int)
    truth = np.where(code == GLASS, -1, code)
    if not kept.is_file():
        corners = range(0, SIDE - TILE_LEVEL0 + 1, TILE_LEVEL0)
        middle = TILE_LEVEL0 // 2
        xy = [(x, y) for y in corners for x in corners if truth[(y + middle) // CELL_PX, (x + middle) // CELL_PX] >= 0]
        with open_slide(path) as slide:
            np.savez(kept, xy=xy, pixels=[slide.read_tile(x, y, TILE_LEVEL0, TILE_PX) for x, y in xy])
    with np.load(kept) as found:
        return Squares48(path, found["xy"], found["pixels"], truth)


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


def balanced(slides: Sequence[Squares48], minutes: float) -> list[list[Outline]]:
    """Return the outlines that a person draws in some minutes a slide: always of the class with the fewest so far."""
    counts: Counter[int] = Counter()
    drawn: list[list[Outline]] = []
    for slide in slides:
        left, budget = candidates(slide.truth), 60 * minutes
        drawn.append([])
        while affordable := [outline for outline in left if seconds(outline) <= budget]:
            chosen = min(affordable, key=lambda outline: counts[outline[0]])
            left = [outline for outline in left if outline is not chosen]
            budget -= seconds(chosen)
            counts[chosen[0]] += 1
            drawn[-1].append(chosen)
    return drawn


def corrected(slide: Squares48, predicted: np.ndarray, minutes: float) -> list[Outline]:
    """Return outlines of the largest regions where a map is wrong, until the minutes are used up."""
    mapped = np.full(slide.truth.shape, -1)
    for (x, y), code in zip(slide.xy, predicted, strict=True):
        rows, columns = (slice(round(v / CELL_PX), round((v + TILE_LEVEL0) / CELL_PX)) for v in (y, x))
        mapped[rows, columns] = code
    drawn, budget = [], 60 * minutes
    for outline in candidates(np.where((mapped >= 0) & (mapped != slide.truth), slide.truth, -1)):
        if seconds(outline) <= budget:
            budget -= seconds(outline)
            drawn.append(outline)
    return drawn


def labels_of(slide: Squares48, drawn: Sequence[Sequence[Outline]]) -> np.ndarray:
    """Return the class that annotation files give each square, (N,), -1 for none; later files win."""
    files = []
    for i, outlines in enumerate(drawn):
        if outlines:
            file = slide.path.with_name(f"{slide.path.stem}-{i}.geojson")
            write_annotations(file, list(outlines), list(CLASSES))
            files.append(read_annotations(file))
    with open_slide(slide.path) as image:
        squares = squares_of(image, Tiling(TILE_PX, TILE_MPP), force=False)
        table = labelled(covers(combine(files, origin=image.bounds), image, squares), min_cover=0.75)
    of = {(x, y): CLASSES.index(name) for x, y, name in zip(table["x"], table["y"], table["label"], strict=True)}
    return np.array([of.get((x, y), -1) for x, y in slide.xy.tolist()])


def as_tensor(pixels: np.ndarray) -> torch.Tensor:
    """Return (N, 3, S, S) uint8, channels_last, of (N, S, S, 3)."""
    return torch.from_numpy(np.ascontiguousarray(pixels)).permute(0, 3, 1, 2)


def train(pixels: np.ndarray, labels: np.ndarray, *, seed: int) -> TrainStep:
    """Return a ResNet-10 that was trained by the recipe `quick`, without a mean of its weights."""
    recipe = recipe_for("quick", tile_side=TILE_PX, colour_share=None)
    recipe = dataclasses.replace(recipe, tile_px=TILE_PX, epochs=EPOCHS, batch_size=BATCH, ema=0, norm_tiles=0)
    network = build_network("resnet10", n_classes=len(CLASSES), seed=seed, zero_init=True)
    network.to(memory_format=torch.channels_last)
    trained = TrainStep(
        network, recipe=recipe, preprocess=Preprocess(TILE_PX), precision="fp32", seed=seed, ranks=Ranks()
    )
    rng = np.random.default_rng(seed)
    order = np.concatenate([rng.permutation(len(labels)) for _ in range(1 + EPOCHS * STEPS * BATCH // len(labels))])
    for n in range(EPOCHS * STEPS):
        rows = order[n * BATCH : (n + 1) * BATCH]
        trained.step(as_tensor(pixels[rows]), labels[rows], epoch=n // STEPS, step=n % STEPS, steps=STEPS)
    network.eval()
    return trained


def probabilities(trained: TrainStep, slide: Squares48) -> np.ndarray:
    """Return the probabilities of a slide's squares, (N, K)."""
    with torch.inference_mode():
        parts = [trained.scores(as_tensor(part)) for part in np.array_split(slide.pixels, 1 + len(slide.xy) // 256)]
        return torch.cat(parts).softmax(1).numpy()


def map_iou(slide: Squares48, p: np.ndarray) -> float:
    """Return the mean IoU over the classes of the truth."""
    info = SlideInfo(slide.path.name, "", SIDE, SIDE, MPP, TILE_PX, TILE_MPP, TILE_LEVEL0, TILE_LEVEL0)
    grid = grid_of(slide.xy, info, len(CLASSES))
    found = class_map(grid, slide.xy, p.astype(np.float64), np.ones(len(p), bool), patch=TILE_LEVEL0)
    code = np.where(slide.truth < 0, GLASS, slide.truth).astype(np.int16)
    return mean_jaccard(score_map(found, GroundTruth(code, CELL_PX)).matrix)


def measure(slides: Sequence[Squares48], seed: int, name: str, kept: Path) -> list[list[object]]:
    """Return one row for each test slide of a round."""
    order = np.random.default_rng(seed).permutation(len(slides))
    learning, tested = [slides[i] for i in order[:N_LEARNING]], [slides[i] for i in order[N_LEARNING:]]
    minutes, minutes_of_corrections = ROUNDS[name]
    drawn = [[outlines] for outlines in balanced(learning, minutes)]
    if minutes_of_corrections:
        with np.load(kept) as before:  # the maps of the learning slides by the network of the same minutes
            for own, slide in zip(drawn, learning, strict=True):
                own.append(corrected(slide, before[slide.path.stem], minutes_of_corrections))
    labels = [labels_of(slide, own) for slide, own in zip(learning, drawn, strict=True)]
    y = np.concatenate(labels)
    pixels = np.concatenate([slide.pixels for slide in learning])[y >= 0]
    trained = train(pixels, y[y >= 0], seed=seed)
    if (minutes, minutes_of_corrections) == (5, 0):
        np.savez(kept, **{slide.path.stem: probabilities(trained, slide).argmax(axis=1) for slide in learning})
    n_outlines = sum(len(outlines) for own in drawn for outlines in own)
    return [
        [seed, name, n_outlines, len(pixels), slide.path.stem, round(map_iou(slide, probabilities(trained, slide)), 4)]
        for slide in tested
    ]


def summary(rows: pd.DataFrame) -> str:
    """Return the table of the README."""
    lines = [
        "| minutes a slide | outlines | tiles | " + " | ".join(f"seed {seed}" for seed in sorted(set(rows["seed"])))
    ]
    lines = [lines[0] + " |", "|---|" + "---:|" * (2 + rows["seed"].nunique())]
    for name in ROUNDS:
        own = rows[rows["minutes"] == name]
        if own.empty:
            continue
        first = own.groupby("seed")[["outlines", "tiles"]].first().mean()
        ious = own.groupby("seed")["mean_iou"].agg(["mean", "min", "max"])
        cells = [f"{each['mean']:.3f} ({each['min']:.2f} to {each['max']:.2f})" for _, each in ious.iterrows()]
        lines.append(f"| {name} | {first['outlines']:.0f} | {first['tiles']:.0f} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Measure all rounds of all seeds that are not yet in WORK; write maps.csv and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("work", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("maps.csv"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.work.mkdir(parents=True, exist_ok=True)
    slides = [make_slide(args.work, source) for source in range(1, 11)]
    done: Mapping[tuple[str, str], list[list[object]]] = {}
    file = args.work / "rows.csv"
    if file.is_file():
        done = {
            tuple(key): own.values.tolist() for key, own in pd.read_csv(file, dtype=str).groupby(["seed", "minutes"])
        }
    for seed in args.seeds:
        for name in ROUNDS:
            if (str(seed), name) in done:
                continue
            rows = measure(slides, seed, name, args.work / f"maps-{seed}.npz")
            is_new = not file.is_file()
            with file.open("a", newline="") as out:
                csv.writer(out, lineterminator="\n").writerows([[*COLUMNS], *rows] if is_new else rows)
            print(*rows[0][:4], np.mean([row[-1] for row in rows]).round(3), flush=True)
    rows = pd.read_csv(file, dtype={"minutes": str})
    rows.to_csv(args.out, index=False, lineterminator="\n")
    print(summary(rows))


if __name__ == "__main__":
    main()
