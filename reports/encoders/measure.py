"""Run frozen encoders and an own network on the tiles of two data sets, and compare their heads.

    python reports/encoders/convert.py *.whl --out data/lite0
    python -m pipeline --config reports/idc-grouped/run.toml
    python reports/encoders/measure.py --idc ../shared/data/idc_patches \
        --colorectal ../shared/data/colorectal5 --lite0 data/lite0/model.safetensors --work data/encoders

Each command that was run is printed with its time. A stage that is finished is skipped, so that the script can be
stopped.
"""

import argparse
import importlib
import json
import shlex
import shutil
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torchvision
from safetensors.torch import save_file

LITE0_PX, RESNET_PX = 112, 64
"""Sides of the inputs of EfficientNet-Lite0 (half of what its weights were trained with) and of both ResNet-50."""

LITE0, RESNET = "timm:tf_efficientnet_lite0", "torchvision:resnet50"

HERE = Path(__file__).parent


def stage(name: str, *words: object) -> None:
    """Run a command of pipeline to its good end, and print it with its time."""
    line = [str(word) for word in words]
    print("$ python -m", f"pipeline.{name}", shlex.join(line), flush=True)
    start = time.time()
    if code := importlib.import_module(f"pipeline.{name}").main(line):
        raise SystemExit(f"pipeline.{name} ended with {code}")
    print(f"# {time.time() - start:.0f} s", flush=True)


def draw(data: Path, out: Path, n: int) -> Path:
    """Write a list of n tiles of a folder of class folders, drawn at random."""
    paths = sorted(path for path in data.glob("*/*") if path.suffix in (".png", ".jpg"))
    chosen = np.sort(np.random.default_rng(0).choice(len(paths), n, replace=False))
    table = pd.DataFrame({"path": [str(paths[i].resolve()) for i in chosen]})
    table["label"] = [paths[i].parent.name for i in chosen]
    table.to_csv(out, index=False, lineterminator="\n")
    return out


def describe(weights: Path, architecture: str, px: int) -> None:
    """Write timm's config.json next to weights: the whole tile, resized to `px`."""
    path = weights.with_name("config.json")
    config = json.loads(path.read_text())["pretrained_cfg"] if path.is_file() else {}
    config = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic"} | config
    config |= {"input_size": [3, px, px], "crop_pct": 1.0}
    path.write_text(json.dumps({"architecture": architecture, "pretrained_cfg": config}, indent=2) + "\n")


def weights_of(work: Path, lite0: Path) -> dict[str, Path]:
    """Write the weights of both frozen encoders with their configuration; return encoder -> file."""
    found = {LITE0: work / "lite0" / "model.safetensors", RESNET: work / "untrained" / "model.safetensors"}
    for path in found.values():
        path.parent.mkdir(parents=True, exist_ok=True)
    for name in ("model.safetensors", "config.json"):
        shutil.copyfile(lite0.with_name(name), work / "lite0" / name)
    torch.manual_seed(0)
    save_file(torchvision.models.resnet50(weights=None).state_dict(), found[RESNET])
    describe(found[LITE0], LITE0.partition(":")[2], LITE0_PX)
    describe(found[RESNET], RESNET.partition(":")[2], RESNET_PX)
    return found


def main() -> None:
    """Make the runs, and compare those of each data set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("idc", "colorectal", "lite0", "work"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--colorectal-tiles", type=int, default=5000, help="tiles of it that are drawn")
    parser.add_argument("--own-idc", type=Path, default=HERE.parent / "idc-grouped", help="run of the own network")
    parser.add_argument("--only", choices=("idc", "colorectal"), nargs="+", default=("idc", "colorectal"))
    options = parser.parse_args()
    work, one = options.work, ("--threads", 1, "--workers", 0)
    weights = weights_of(work, options.lite0)
    split = {
        "idc": ("--group-regex", r"(\d+)_idx5", "--protocol", "grouped", "--folds", 5),
        "colorectal": ("--protocol", "random"),
    }
    for name in options.only:
        source = getattr(options, name)
        if name == "colorectal":
            source = draw(source, work / "colorectal.csv", options.colorectal_tiles)
        data = ("--data", source, *split[name])
        runs = []
        for encoder in (LITE0, RESNET):
            run = work / name / weights[encoder].parent.name
            runs.append(run)
            stage("prepare", "--run", run, *data)
            stage("extract", "--run", run, *one, "--encoder", encoder, "--weights", weights[encoder])
            stage("fit_heads", "--run", run, "--threads", 1, "--no-baselines")
        own = options.own_idc
        if name == "colorectal":
            own = work / name / "own"
            stage("prepare", "--run", own, *data)
            recipe = ("--recipe", "strong", "--tile-px", RESNET_PX, "--progressive", 1.0, "--epochs", 5)
            stage("train", "--run", own, *one, *recipe)
            stage("extract", "--run", own, *one)
            stage("baselines", "--run", own, *one, "--baseline-px", 32)
            stage("fit_heads", "--run", own, "--threads", 1)
        stage("compare", own, *runs, "--out", HERE / name)


if __name__ == "__main__":
    main()
