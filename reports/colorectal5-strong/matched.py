"""What a network's softmax says of test tiles whose colours, as a whole set, are matched to those of training tiles.

    python reports/colorectal5-strong/matched.py RUN [RUN ...]       (trained runs; writes matched.csv beside this file)

Each channel of all corrupted test tiles together is moved and scaled to the mean and spread of training tiles, by one
map for the whole set: what could be done for the tiles of one scanner, where a map for each tile (`train --stain`)
would take the differences between classes away, too. No labels are used, but the set has the class mix of training.
"""

import csv
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from sklearn.metrics import f1_score

from pipeline.network.batches import normalise
from pipeline.network.model_file import load_model
from pipeline.network.precision import autocast
from pipeline.tiles.corruptions import CORRUPTIONS
from pipeline.tiles.manifest import read_manifest

N_FITTED = 300
"Trainer tiles that the target is taken from."


def pixels_of(paths, size, corruption=None):
    """Return (N, size, size, 3) uint8; a corruption comes before the resizing, as in `pipeline.robustness`."""
    tiles = []
    for path in paths:
        tile = np.asarray(Image.open(path).convert("RGB"))
        tile = tile if corruption is None else CORRUPTIONS[corruption].apply(tile)
        tiles.append(np.asarray(Image.fromarray(tile).resize((size, size), Image.Resampling.BILINEAR)))
    return np.stack(tiles)


def spread(pixels):
    """Return mean and standard deviation of each channel over all tiles."""
    flat = pixels.reshape(-1, 3)
    return flat.mean(axis=0), flat.std(axis=0)


def predicted(model, pixels, batch=50):
    """Return the class codes that the network names."""
    found = []
    with torch.inference_mode(), autocast(torch.device("cpu"), "bf16"):
        for start in range(0, len(pixels), batch):
            x = torch.from_numpy(pixels[start : start + batch]).permute(0, 3, 1, 2)
            x = normalise(x, mean=model.preprocess.mean, std=model.preprocess.std)
            found.append(model.network(x).float().argmax(1).numpy())
    return np.concatenate(found)


def measure(run):
    """Yield a row for each corruption, as it is and matched."""
    model, manifest = load_model(run / "model.safetensors"), read_manifest(run / "manifest.csv")
    train, test = (manifest.readable[manifest.readable["split"] == split] for split in ("train", "test"))
    size = model.preprocess.size
    drawn = train.sample(min(N_FITTED, len(train)), random_state=0)
    mean, std = spread(pixels_of((manifest.root / path for path in drawn["path"]), size))
    y = pd.Categorical(test["label"], categories=model.classes).codes
    for corruption in (None, "colour_shift", "stain_change", "brightness"):
        pixels = pixels_of((manifest.root / path for path in test["path"]), size, corruption)
        own_mean, own_std = spread(pixels)
        matched = np.clip(np.rint((pixels - own_mean) / own_std * std + mean), 0, 255).astype(np.uint8)
        for name, seen in (("no", pixels), ("yes", matched)):
            said = predicted(model, seen)
            f1 = f1_score(y, said, average="macro")
            yield [run.name, corruption or "none", name, int((said != y).sum()), len(y), f"{f1:.4f}"]


def main():
    """Measure all runs named."""
    with (Path(__file__).parent / "matched.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["run", "corruption", "matched", "errors", "n", "macro_f1"])
        for run in sys.argv[1:]:
            for row in measure(Path(run)):
                writer.writerow(row)
                print(*row, flush=True)


if __name__ == "__main__":
    main()
