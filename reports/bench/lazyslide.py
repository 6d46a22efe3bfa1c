"""Compare embedding a slide with LazySlide: whole commands in alternating rounds, the same slide and network, in fp32.

    python reports/bench/lazyslide.py --theirs OTHER_VENV/bin/python --run RUN --slide SLIDE.tif

RUN has a resnet50 that was trained at a known scale. OTHER_VENV has lazyslide, torchvision and safetensors. Each
command starts Python, finds tissue, cuts it into tiles at the scale of the network, embeds them by --threads threads
and writes them. Printed are the wall time and the processor time of each command with its processes, which a busy
machine changes less.
"""

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import h5py

THEIRS = """
import json, sys
import lazyslide as zs, torch, torchvision, wsidata
from safetensors.torch import load_file
slide, weights, description, out, threads = sys.argv[1:]
torch.set_num_threads(int(threads))
info = json.load(open(description))
scale = info["preprocess"]
network = torchvision.models.resnet50(num_classes=len(info["classes"]))
network.load_state_dict(load_file(weights))
network.fc = torch.nn.Identity()
preprocess = torchvision.transforms.Compose([
    torchvision.transforms.ToTensor(),
    torchvision.transforms.Normalize(scale["mean"], scale["std"]),
])
wsi = wsidata.open_wsi(slide, store=out)
zs.pp.find_tissues(wsi)
zs.pp.tile_tissues(wsi, scale["size"], mpp=scale["mpp"])
zs.tl.feature_extraction(wsi, network.eval(), model_name="resnet50", transform=preprocess, device="cpu", pbar=False)
wsi.write(overwrite=True)
print(len(wsi["tiles"]))
"""


def measured(words: list[str]) -> tuple[float, float, str]:
    """Return processor time in s, wall time in s and the output of a command that must succeed."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(words, capture_output=True, text=True, check=False)  # noqa: S603
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"{words[0]} ended with {done.returncode}: {done.stderr[-2000:]}")
    busy = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return busy, wall, done.stdout


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--theirs", type=Path, required=True, help="Python that has lazyslide")
    parser.add_argument("--run", type=Path, required=True, help="run folder with a trained resnet50")
    parser.add_argument("--slide", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(options.threads)
    model = options.run / "model.safetensors"
    rows: dict[str, list[tuple[float, float]]] = {"histoheads": [], "lazyslide": []}
    for _ in range(options.rounds):
        with tempfile.TemporaryDirectory() as folder:
            run = Path(folder) / "run"
            run.mkdir()
            for path in (*options.run.glob("model.*"), *options.run.glob("manifest.csv*")):
                shutil.copy(path, run)
            words = ["--run", run, "--slide", options.slide, "--threads", options.threads, "--workers", 1]
            busy, wall, _ = measured([sys.executable, "-m", "pipeline.extract", *map(str, words)])
            rows["histoheads"].append((busy, wall))
            embedded = next(run.glob("slides/*/*.h5"))
            made = json.loads(embedded.with_name(embedded.name + ".json").read_text())["details"]
            with h5py.File(embedded) as file:
                n = len(file["features"])
            words = [options.slide, model, model.with_suffix(".json"), Path(folder) / "theirs.zarr", options.threads]
            busy, wall, out = measured([str(options.theirs), "-c", THEIRS, *map(str, words)])
            rows["lazyslide"].append((busy, wall))
            print(f"{made['engine']} {made['precision']}, {n} tiles; lazyslide {out.split()[-1]} tiles")
        for name, seconds in rows.items():
            print(f"{name}: processor {seconds[-1][0]:.1f} s, wall {seconds[-1][1]:.1f} s", flush=True)
    for name, seconds in rows.items():
        busy, wall = (statistics.median(column) for column in zip(*seconds, strict=True))
        print(f"median of {options.rounds}, {name}: processor {busy:.1f} s, wall {wall:.1f} s")
    print(f"load of the machine {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
