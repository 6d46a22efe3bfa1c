"""Measure the peak memory of the stages on annotated slides by the number of tiles; prints a Markdown table.

Four synthetic slides of 6000 x 6000 px with rough outlines; at most so many tiles of a class, or all.

    python reports/annotations/memory.py WORK
"""

import argparse
import sys
from pathlib import Path

import pandas as pd

from pipeline import demo_slide

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "reports" / "bench"))

from stage_cost import run_stage  # noqa: E402

TILES_PER_CLASS = (100, 500, None)
STAGES = {
    "prepare": ("--allow-leakage",),  # white tiles of synthetic slides are alike
    "train": ("--arch", "resnet10", "--recipe", "quick", "--tile-px", "32", "--epochs", "1"),
    "extract": (),
    "fit_heads": (),
}


def main() -> None:
    """Make the slides that are missing, then all stages for each number of tiles."""
    parser = argparse.ArgumentParser()
    parser.add_argument("work", type=Path)
    work: Path = parser.parse_args().work.resolve()
    slides = work / "slides"
    for n in range(1, 5):
        words = ["--side", "6000", "--source", str(n), "--seed", str(n), "--annotations", "40"]
        if demo_slide.main([*words, "--out", str(slides / f"s{n}.tif")]):
            raise SystemExit("no slide")
    print("| tiles |", " | ".join(f"{stage}, MB" for stage in STAGES), "|")
    print("|---:|" + "---:|" * len(STAGES))
    for most in TILES_PER_CLASS:
        run, peaks = work / f"run-{most}", []
        for stage, words in STAGES.items():
            own = ["--run", str(run), *words]
            if stage == "prepare":
                own += ["--data", str(slides), "--cut-px", "32", "--cut-mpp", "0.99"]
                own += [] if most is None else ["--tiles-per-class", str(most)]
            peaks.append(run_stage(stage, own, log=work / f"{stage}-{most}.log").megabytes)
        n = len(pd.read_csv(run / "manifest.csv", usecols=["tile_id"]))
        print(f"| {n} |", " | ".join(f"{peak:.0f}" for peak in peaks), "|", flush=True)


if __name__ == "__main__":
    main()
