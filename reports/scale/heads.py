"""Time and peak memory of fit_heads by number of rows, within a stated memory; writes heads.csv and heads.md beside it.

    python reports/scale/heads.py --rows 10000 100000 --memory 4GB             (goes on where it stopped)
    python reports/scale/heads.py --rows 10000 100000 1000000 --memory 4GB     (20 GB of disk)

Embeddings are synthetic, 2048 features of 8 classes from 40 sources, and are written as `extract` writes them, a block
at a time. Each fit_heads is a process of its own; memory is that of it and of all its children together.
"""

import argparse
import csv
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from pipeline.benchmark.hardware import describe
from pipeline.benchmark.synthetic_data import synthetic_attrs, synthetic_features
from pipeline.storage import atomic, records
from pipeline.storage.embeddings.partial_rows import PartialRows, row_type
from pipeline.storage.embeddings.reader import SCHEMA
from pipeline.storage.embeddings.writer import write_embeddings

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent / "bench"))

from stage_cost import run_stage  # noqa: E402

WIDTH, N_CLASSES, N_GROUPS, BLOCK = 2048, 8, 40, 4096
COLUMNS = (
    "rows",
    "memory",
    "cluster",
    "rounds",
    "streamed",
    "seconds",
    "megabytes",
    "svm_seconds",
    "xgboost_seconds",
    "softmax_accuracy",
    "svm_accuracy",
    "xgboost_accuracy",
    "commit",
)
"""Seconds of a head are those of its search and fit; accuracies are of the test rows."""


class Synthetic(PartialRows):
    """Rows that are made when they are asked for."""

    def __init__(self, target: Path, y: np.ndarray, *, seed: int) -> None:
        super().__init__(target, row=row_type(WIDTH, N_CLASSES), identity={}, batch=BLOCK)
        self.y, self.seed = y, seed
        known = synthetic_features(np.arange(BLOCK) % N_CLASSES, WIDTH, seed=seed)
        self.means = np.stack([known[code::N_CLASSES].mean(axis=0) for code in range(N_CLASSES)])

    def blocks(self) -> Iterator[np.ndarray]:
        """Yield all rows, a block at a time; logits tell how near the classes' means are."""
        for number, start in enumerate(range(0, len(self.y), BLOCK)):
            y = self.y[start : start + BLOCK]
            rows = np.zeros(len(y), self.row)
            rows["features"] = synthetic_features(y, WIDTH, seed=self.seed + 1 + number)
            scores = rows["features"] @ self.means.T - (self.means**2).sum(axis=1) / 2
            rows["logits"], rows["sha256"] = scores / scores.std(), 1
            yield rows


def make_run(run: Path, n: int, *, seed: int) -> None:
    """Write embeddings.h5 of n rows with its record: of each five sources three train, one judges, one tests."""
    rng = np.random.default_rng(seed)
    y, group = rng.permutation(np.arange(n) % N_CLASSES), rng.integers(0, N_GROUPS, n)
    path = run / "embeddings.h5"
    names = [f"{row:08d}" for row in range(n)]
    split = np.array(["train", "train", "train", "val", "test"], dtype=object)[group % 5]
    table = pd.DataFrame({"tile_id": names, "path": names, "split": split})
    table["group"] = np.array([f"source {number:02d}" for number in range(N_GROUPS)], dtype=object)[group]
    classes = [chr(ord("a") + code) for code in range(N_CLASSES)]
    table["label"] = np.array(classes, dtype=object)[y]
    write_embeddings(path, Synthetic(path, y, seed=seed), table, attrs=synthetic_attrs(classes))
    details = {"skipped": {}, "dataset": "synthetic embeddings", "protocol": "grouped", "credit": None}
    records.write_record(records.Artifact(path, SCHEMA, "extract"), details=details)


def pieces(run: Path) -> Iterator[pd.DataFrame]:
    """Yield the predictions, some lines at a time, from the CSV file or from the Parquet file of large tables."""
    columns = ["split", "label", "head", "predicted"]
    if (run / "predictions.parquet").is_file():
        import pyarrow.parquet

        for batch in pyarrow.parquet.ParquetFile(run / "predictions.parquet").iter_batches(columns=columns):
            yield batch.to_pandas()
    else:
        yield from pd.read_csv(run / "predictions.csv", usecols=columns, chunksize=200_000)


def accuracies(run: Path) -> dict[str, float]:
    """Return head -> accuracy on the test rows."""
    right: dict[str, int] = {}
    n: dict[str, int] = {}
    for piece in pieces(run):
        test = piece[piece["split"].astype(str) == "test"]
        hits = test["label"].astype(str) == test["predicted"].astype(str)
        for head, own in hits.groupby(test["head"].astype(str)):
            right[str(head)] = right.get(str(head), 0) + int(own.sum())
            n[str(head)] = n.get(str(head), 0) + len(own)
    return {head: right[head] / n[head] for head in right}


def measured(args: argparse.Namespace, n: int, commit: str) -> dict[str, object]:
    """Make n rows, fit the heads on them, and return a line of the table; the run is removed."""
    run = args.work / str(n)
    if not records.record_path(run / "embeddings.h5").is_file():
        run.mkdir(parents=True, exist_ok=True)
        make_run(run, n, seed=args.seed)
    words = ["--run", str(run), "--device", "cpu", "--seed", str(args.seed), "--memory", args.memory, "--restart"]
    words += ["--rounds", str(args.rounds)]
    words += ["--threads", str(args.threads)] if args.threads else []
    words += ["--cluster", args.cluster] if args.cluster else []
    cost = run_stage("fit_heads", words, log=args.work / f"{n}.log")
    heads = json.loads((run / "heads/heads.json").read_text(encoding="utf-8"))["heads"]
    line = {"rows": n, "memory": args.memory, "cluster": args.cluster, "rounds": args.rounds, "commit": commit}
    line |= {"seconds": f"{cost.seconds:.1f}", "megabytes": f"{cost.megabytes:.0f}"}
    line["streamed"] = "yes" if any("streamed" in note for note in heads["svm"]["notes"]) else "no"
    for name in ("svm", "xgboost"):
        line[f"{name}_seconds"] = f"{heads[name]['search_seconds'] + heads[name]['fit_seconds']:.1f}"
    for name, value in accuracies(run).items():
        if f"{name}_accuracy" in COLUMNS:
            line[f"{name}_accuracy"] = f"{value:.4f}"
    shutil.rmtree(run)
    return line


def page(lines: list[dict[str, str]], command: str, threads: int) -> str:
    """Return heads.md."""
    names = (
        "rows",
        "stated memory",
        "cluster",
        "rounds at most",
        "streamed",
        "s",
        "peak memory, MB",
        "SVM, s",
        "XGBoost, s",
    )
    names += ("accuracy: softmax", "SVM", "XGBoost", "commit")
    head = [
        "# fit_heads by number of rows",
        "",
        f"{WIDTH} features, {N_CLASSES} classes, synthetic; baselines on embeddings included. Made by `{command}`.",
        "",
        *(f"- {line}" for line in describe(torch.device("cpu"), threads)),
        "",
        f"| {' | '.join(names)} |",
        "|" + "---|" * len(names),
    ]
    rows = []
    for line in lines:
        cells = [f"{int(line['rows']):,}", *(line[name] for name in COLUMNS[1:-1]), line["commit"][:7]]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join([*head, *rows, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--memory", default="4GB")
    parser.add_argument("--cluster", default="")
    parser.add_argument("--rounds", type=int, default=100, help="of XGBoost, at most")
    parser.add_argument("--threads", type=int, default=0, help="default: all cores")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, default=Path("reports/scale/runs"), help="for runs; removed one by one")
    parser.add_argument("--out", type=Path, default=HERE / "heads.csv")
    args = parser.parse_args()
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, cwd=HERE).stdout.strip()  # noqa: S607
    lines: list[dict[str, str]] = []
    if args.out.is_file():
        with args.out.open(newline="", encoding="utf-8") as file:
            lines = list(csv.DictReader(file))
    for n in args.rows:
        asked = {"rows": str(n), "memory": args.memory, "cluster": args.cluster, "rounds": str(args.rounds)}
        if any(asked.items() <= line.items() for line in lines):
            print(f"{n} rows: measured before")
            continue
        line = measured(args, n, commit)
        lines.append({name: str(line.get(name, "")) for name in COLUMNS})
        text = "".join(",".join(line[name] for name in COLUMNS) + "\n" for line in lines)
        atomic.write_text(args.out, ",".join(COLUMNS) + "\n" + text)
        words = f"--rows {' '.join(map(str, args.rows))} --memory {args.memory} --rounds {args.rounds}"
        words += f" --threads {args.threads}" if args.threads else ""
        command = f"python reports/scale/heads.py {words}"
        atomic.write_text(args.out.with_suffix(".md"), page(lines, command, args.threads or torch.get_num_threads()))
        print(f"{n} rows: {line['seconds']} s, {line['megabytes']} MB")


if __name__ == "__main__":
    main()
