"""Time the whole job stage by stage, plain script and `pipeline` in turn; write whole-job.csv and .md beside this file.

    python reports/whole-job/measure.py ../shared/data/colorectal5

An epoch costs the same as the next, so that few are run (--epochs of ours, --plain-epochs of the plain script), and the
job of the recipe's 15 epochs is what was measured with as many of its own epochs more. What `pipeline` alone does
(baselines, robustness) is left out; preparing with its audit and the report are counted.
"""

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd

HERE = Path(__file__).parent
RECIPE_EPOCHS = 15


def timed(*words):
    """Run a command of python's; return its seconds, and those at which it told that an epoch was done."""
    command = [sys.executable, *map(str, words)]
    start, told = time.time(), []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:  # noqa: S603
        for line in process.stdout:
            print(line, end="", flush=True)
            if line.startswith("train: epoch "):
                told.append(time.time() - start)
    if process.returncode:
        raise SystemExit(f"{command} ended with {process.returncode}")
    return time.time() - start, told


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--plain-epochs", type=int, default=1)
    args = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="whole-job-"))
    run, plain = work / "run", HERE / "plain.py"
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, cwd=HERE)  # noqa: S607
    ours, theirs = {}, {}

    def stage(name, *words):
        ours[name], told = timed("-m", f"pipeline.{name}", "--run", run, *words)
        return told

    stage("prepare", "--data", args.data, "--protocol", "random")
    given = [run / "manifest.csv", args.data, work]
    theirs["train"], _ = timed(plain, "train", *given, "--epochs", args.plain_epochs)
    told = stage("train", "--recipe", "tutorial", "--epochs", args.epochs)
    theirs["extract"], _ = timed(plain, "embed", *given)
    stage("extract")
    stage("fit_heads", "--no-baselines")
    theirs["fit_heads"], _ = timed(plain, "heads", *given)
    stage("report", "--gallery", "0")

    their_epoch = statistics.median(json.loads((work / "plain-epochs.json").read_text()))
    our_epoch = statistics.median(b - a for a, b in itertools.pairwise(told))
    theirs["train"] += (RECIPE_EPOCHS - args.plain_epochs) * their_epoch
    ours["train"] += (RECIPE_EPOCHS - args.epochs) * our_epoch
    rows = [(name, theirs.get(name), ours[name]) for name in ours]
    rows.append(("all", sum(theirs.values()), sum(ours.values())))
    table = pd.DataFrame(rows, columns=["stage", "plain_s", "pipeline_s"])
    table["times"] = table.plain_s / table.pipeline_s
    table.round(2).to_csv(HERE / "whole-job.csv", index=False, lineterminator="\n")
    lines = ["| stage | plain script, s | histoheads, s | times |", "|---|---:|---:|---:|"]
    for row in table.itertuples():
        cells = ["" if pd.isna(value) else f"{value:.1f}" for value in (row.plain_s, row.pipeline_s)]
        lines.append(f"| {row.stage} | {' | '.join(cells)} | {'' if pd.isna(row.times) else f'{row.times:.2f}'} |")
    n = len(pd.read_csv(run / "manifest.csv"))
    told_epochs = (
        f"{args.plain_epochs} and {args.epochs} epochs measured, one takes {their_epoch:.0f} s and {our_epoch:.0f} s"
    )
    lines += ["", f"{n} tiles, {RECIPE_EPOCHS} epochs: {told_epochs}. Commit {commit.stdout.strip()}."]
    (HERE / "whole-job.md").write_text("\n".join(["# The whole job, timed", "", *lines, ""]))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
