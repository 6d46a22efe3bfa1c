"""The whole job as a plain script, the way a tutorial has it: the yardstick for the time of `python -m pipeline`.

It shares no code with `pipeline` but the rows of manifest.csv. ResNet-50 from scratch in fp32, Adam 1e-3, StepLR,
flips, batch 32; the penultimate layer of all tiles; GridSearchCV over 5 x 5 points of an RBF SVM in 3 folds;
XGBClassifier as it comes. Each stage is a call of its own, so that it can be timed beside the other program's:

    python reports/whole-job/plain.py train MANIFEST IMAGE_ROOT WORK --epochs 15
    python reports/whole-job/plain.py embed MANIFEST IMAGE_ROOT WORK
    python reports/whole-job/plain.py heads MANIFEST IMAGE_ROOT WORK
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from torch.utils.data import DataLoader, Dataset
from torchvision import models, transforms
from xgboost import XGBClassifier

PX, BATCH, WORKERS = 150, 32, 2
NORMALISE = transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
PLAIN = transforms.Compose([transforms.Resize((PX, PX)), transforms.ToTensor(), NORMALISE])
FLIPS = transforms.Compose(
    [
        transforms.Resize((PX, PX)),
        transforms.RandomHorizontalFlip(),
        transforms.RandomVerticalFlip(),
        transforms.ToTensor(),
        NORMALISE,
    ]
)


class Tiles(Dataset):
    def __init__(self, rows, root, classes, transform):
        self.rows, self.root, self.classes, self.transform = rows, root, classes, transform

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, i):
        row = self.rows.iloc[i]
        return self.transform(Image.open(self.root / row.path).convert("RGB")), self.classes.index(row.label)


def train(table, classes, args):
    train_tiles = Tiles(table[table.split == "train"], args.root, classes, FLIPS)
    loader = DataLoader(train_tiles, BATCH, shuffle=True, num_workers=WORKERS)
    held = DataLoader(Tiles(table[table.split == "val"], args.root, classes, PLAIN), BATCH, num_workers=WORKERS)
    model = models.resnet50(num_classes=len(classes))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, step_size=7, gamma=0.1)
    best, seconds = -1.0, []
    for _ in range(args.epochs):
        start = time.time()
        model.train()
        for x, y in loader:
            loss = torch.nn.functional.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
        model.eval()
        with torch.no_grad():
            right = sum((model(x).argmax(1) == y).sum().item() for x, y in held)
        if right > best:
            best = right
            torch.save(model.state_dict(), args.work / "plain.pt")
        seconds.append(time.time() - start)
    (args.work / "plain-epochs.json").write_text(json.dumps(seconds))


def embed(table, classes, args):
    model = models.resnet50(num_classes=len(classes))
    model.load_state_dict(torch.load(args.work / "plain.pt"))
    model.fc = torch.nn.Identity()
    model.eval()
    loader = DataLoader(Tiles(table, args.root, classes, PLAIN), BATCH, num_workers=WORKERS)
    with torch.no_grad():
        features = np.concatenate([model(x).numpy() for x, _ in loader])
    np.save(args.work / "plain.npy", features)


def heads(table, classes, args):
    features = np.load(args.work / "plain.npy")
    y = np.array([classes.index(label) for label in table.label])
    train_rows, test_rows = (table.split == "train").to_numpy(), (table.split == "test").to_numpy()
    grid = {"svc__C": [0.1, 1, 10, 100, 1000], "svc__gamma": [f / features.shape[1] for f in (0.1, 0.3, 1, 3, 10)]}
    svm = GridSearchCV(make_pipeline(StandardScaler(), SVC()), grid, cv=3, n_jobs=-1)
    for name, model in (("svm", svm), ("xgboost", XGBClassifier())):
        start = time.time()
        model.fit(features[train_rows], y[train_rows])
        accuracy = float((model.predict(features[test_rows]) == y[test_rows]).mean())
        print(name, f"{accuracy:.4f}", f"{time.time() - start:.1f} s", flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("stage", choices=["train", "embed", "heads"])
    parser.add_argument("manifest", type=Path)
    parser.add_argument("root", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--epochs", type=int, default=15)
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    table = pd.read_csv(args.manifest, dtype={"label": str})
    table = table[table.split.notna()]
    classes = sorted(table.label.unique())
    {"train": train, "embed": embed, "heads": heads}[args.stage](table, classes, args)


if __name__ == "__main__":
    main()
