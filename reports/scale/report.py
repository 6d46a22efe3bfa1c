"""Time and peak memory of a report by its number of rows; writes report.csv and report.md beside it.

    python reports/scale/report.py                         (100,000, 400,000 and 1,000,000 rows of three heads)
    python reports/scale/report.py --rows 10000000
    python reports/scale/report.py --rows 100000 --checkout OTHER     (the report of another checkout)

Rows that stand in report.csv already, of the same form, are measured anew, others are kept. Memory is that of all
processes of the command together.
"""

import argparse
import csv
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from synthetic_predictions import HEADS, write_synthetic

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path.append(str(ROOT / "reports" / "bench"))

from stage_cost import Watch  # noqa: E402

COLUMNS = ("rows", "lines", "form", "commit", "file_mb", "write_s", "report_s", "report_peak_mb")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 400_000, 1_000_000])
    parser.add_argument("--checkout", type=Path, default=ROOT, help="whose report is run")
    args = parser.parse_args()
    table = HERE / "report.csv"
    rows = []
    if table.is_file():
        with table.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    for n in args.rows:
        found = measure(n, args.checkout.resolve())
        print(found)
        rows = [row for row in rows if (row["rows"], row["commit"]) != (found["rows"], found["commit"])] + [found]
        rows.sort(key=lambda row: (int(row["rows"]), row["commit"]))
        with table.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        (HERE / "report.md").write_text(page(rows), encoding="utf-8")


def measure(n, checkout):
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=checkout)  # noqa: S607
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        start = time.perf_counter()
        path = write_synthetic(run, n)
        written = time.perf_counter() - start
        others = os.environ.get("PYTHONPATH", "").split(os.pathsep)
        search = os.pathsep.join([str(checkout), *(each for each in others if each and Path(each) != ROOT)])
        command = [sys.executable, "-m", "pipeline.report", "--run", str(run)]
        start = time.perf_counter()
        process = subprocess.Popen(command, cwd=folder, env=os.environ | {"PYTHONPATH": search})  # noqa: S603
        with Watch(process.pid) as watch:
            code = process.wait()
        if code:
            raise SystemExit(f"report of {n} rows ended with code {code}")
        cells = (n, n * len(HEADS), path.suffix[1:], commit.stdout.strip(), round(path.stat().st_size / 1e6, 1))
        times = (round(written, 1), round(time.perf_counter() - start, 1), round(watch.peak_bytes / 1e6))
    return {name: str(cell) for name, cell in zip(COLUMNS, cells + times, strict=True)}


def page(rows):
    """Return report.md; the slope is that between the two largest Parquet tables of one commit."""
    lines = [
        "# Reports by the number of rows",
        "",
        f"Synthetic predictions of {len(HEADS)} heads, 9 classes, 200 groups, by `python reports/scale/report.py`:",
        "tiles, lines of the table, its form and size, the time of writing it, and time and peak memory of",
        "`python -m pipeline.report`.",
        "",
        "| rows | lines | form | commit | file, MB | written in, s | report, s | peak, MB |",
        "|---:|---:|---|---|---:|---:|---:|---:|",
        *("| " + " | ".join(row[name] for name in COLUMNS) + " |" for row in rows),
    ]
    large = [row for row in rows if row["form"] == "parquet" and row["commit"] == rows[-1]["commit"]]
    if len(large) > 1:
        (n0, m0), (n1, m1) = ((int(row["rows"]), float(row["report_peak_mb"])) for row in large[-2:])
        lines += ["", f"From {n0} to {n1} rows the peak grows by {1e6 * (m1 - m0) / (n1 - n0):.0f} bytes a row."]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
