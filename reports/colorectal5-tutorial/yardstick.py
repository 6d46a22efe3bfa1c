"""The tutorial's recipe as a plain script: the yardstick for this run's softmax head.

It shares no code with `pipeline` but the rows of manifest.csv: torchvision's ResNet-50 from scratch, Adam 1e-3,
StepLR x0.1 every 7 epochs, 15 epochs, batch 32, random flips, 150 px; the best validation epoch is tested.

    python reports/colorectal5-tutorial/yardstick.py manifest.csv IMAGE_ROOT OUT.json [--px 150] [--seed 0]

It writes one JSON file, and after each epoch OUT.json.pt, from which the same command continues.
"""

import argparse
import json
import time
from pathlib import Path

import pandas as pd
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import models, transforms


class Tiles(Dataset):
    def __init__(self, rows, root, classes, transform):
        self.rows, self.root, self.classes, self.transform = rows, root, classes, transform

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, i):
        row = self.rows.iloc[i]
        image = Image.open(self.root / row.path).convert("RGB")
        return self.transform(image), self.classes.index(row.label)


def accuracy(model, loader):
    model.eval()
    hits = total = 0
    with torch.inference_mode():
        for x, y in loader:
            x = x.contiguous(memory_format=torch.channels_last)
            hits += (model(x).argmax(1) == y).sum().item()
            total += len(y)
    return hits / total


def main():
    args = argparse.ArgumentParser()
    args.add_argument("manifest", type=Path)
    args.add_argument("root", type=Path)
    args.add_argument("out", type=Path)
    args.add_argument("--seed", type=int, default=0)
    args.add_argument("--px", type=int, default=150)
    args.add_argument("--threads", type=int, default=1)
    args.add_argument("--epochs", type=int, default=15)
    args = args.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    table = pd.read_csv(args.manifest)
    classes = sorted(table.label.unique())
    normalise = transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    plain = transforms.Compose([transforms.Resize((args.px, args.px)), transforms.ToTensor(), normalise])
    flips = transforms.Compose(
        [
            transforms.Resize((args.px, args.px)),
            transforms.RandomHorizontalFlip(),
            transforms.RandomVerticalFlip(),
            transforms.ToTensor(),
            normalise,
        ]
    )
    loaders = {
        split: DataLoader(
            Tiles(table[table.split == split], args.root, classes, flips if split == "train" else plain),
            batch_size=32,
            shuffle=split == "train",
        )
        for split in ("train", "val", "test")
    }
    model = models.resnet50(num_classes=len(classes)).to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, step_size=7, gamma=0.1)
    saved = args.out.with_name(args.out.name + ".pt")
    state = {"epoch": 0, "history": [], "best": -1.0, "best_model": None}
    if saved.exists():
        state = torch.load(saved)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
        torch.set_rng_state(state["rng"])
    for epoch in range(state["epoch"], args.epochs):
        start, total = time.time(), 0.0
        model.train()
        for x, y in loaders["train"]:
            x = x.contiguous(memory_format=torch.channels_last)
            loss = torch.nn.functional.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(y)
        schedule.step()
        val = accuracy(model, loaders["val"])
        row = {
            "epoch": epoch + 1,
            "loss": total / len(loaders["train"].dataset),
            "val_accuracy": val,
            "seconds": time.time() - start,
        }
        state["history"].append(row)
        print(row, flush=True)
        if val > state["best"]:
            state["best"] = val
            state["best_model"] = {k: v.clone() for k, v in model.state_dict().items()}
        state |= {
            "epoch": epoch + 1,
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "schedule": schedule.state_dict(),
            "rng": torch.get_rng_state(),
        }
        torch.save(state, str(saved) + ".tmp")
        Path(str(saved) + ".tmp").replace(saved)
    model.load_state_dict(state["best_model"])
    result = {
        "recipe": f"ResNet-50 from scratch, Adam 1e-3, StepLR x0.1/7, batch 32, flips, {args.px} px",
        "seed": args.seed,
        "best_val_accuracy": state["best"],
        "test_accuracy": accuracy(model, loaders["test"]),
        "n_test": len(loaders["test"].dataset),
        "history": state["history"],
        "torch": torch.__version__,
    }
    args.out.write_text(json.dumps(result, indent=1) + "\n")
    print(result)


if __name__ == "__main__":
    main()
