"""kill -9 at random moments, and at each step of writing: the same command ends as if nothing had happened (P1, P2)."""

import contextlib
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipeline.storage.atomic import sha256_file
from pipeline.storage.embeddings.reader import read_embeddings
from pipeline.storage.predictions.csv_table import read_predictions

from ..conftest import train_words, write_tiles  # noqa: TID252  (no package has the tests)
from .commands import ROOT, Commands
from .conftest import MADE, WORDS, Finished, temporaries, vouched
from .forking import DEAD

pytestmark = pytest.mark.slow

Record = Any
"""pytest's `record_property`: the ledger reads tries, survived and lost_rows."""


def rows_lost(finished: Finished, run: Path, stage: str) -> int:
    """Return how many rows of a stage's result are not those of the undisturbed run."""
    whole = finished.base / stage
    if stage == "extract":
        ours, theirs = (read_embeddings(folder / "embeddings.h5") for folder in (run, whole))
        rows = {name: row.tobytes() for name, row in zip(ours.tile_id, ours.features, strict=True)}
        expected = zip(theirs.tile_id, theirs.features, strict=True)
        return sum(rows.get(name) != row.tobytes() for name, row in expected)
    if stage == "fit_heads":
        ours, theirs = (read_predictions(folder / "predictions.csv") for folder in (run, whole))
        return len(theirs) - len(theirs.merge(ours))
    times = ["seconds", "images_per_second"]
    ours, theirs = (pd.read_csv(folder / "history.csv").drop(columns=times) for folder in (run, whole))
    return len(theirs) - len(theirs.merge(ours))


def kill_at_random_moments(
    commands: Commands, finished: Finished, kills: int, tmp_path: Path, record_property: Record, *, stage: str
) -> None:
    """Kill a stage so many times, each time in another run and with a rerun behind; every third time with a worker."""
    seed = random.SystemRandom().getrandbits(32)
    print(f"moments drawn from seed {seed}")
    moments = random.Random(seed)
    ended, took = commands.timed(stage, WORDS[stage](finished.copy(tmp_path / "whole", before=stage)))
    assert ended.code == 0, ended.said
    faults: list[str] = []
    tries = survived = lost = 0
    for i in range(4 * kills):
        place = tmp_path / str(i)
        run = finished.copy(place, before=stage)
        words = WORDS[stage](run) + (["--workers", "1"] if i % 3 == 2 else [])
        moment = moments.uniform(0, took)
        if commands.run_killed(stage, words, after=moment).code == 0:
            shutil.rmtree(place)
            continue  # it was faster this time
        tries += 1
        found = [f"{name} is torn" for name in finished.torn(run)]
        again = commands.run(stage, WORDS[stage](run))
        found += [again.said] * (again.code != 0)
        found += [f"{name} is another" for name in finished.wrong(run, stage)]
        found += [f"{path.name} is left" for path in temporaries(run)]
        lost += rows_lost(finished, run, stage) if again.code == 0 else 0
        faults += [f"killed after {moment:.3f} s of {took:.3f}: {fault}" for fault in found]
        survived += not found
        shutil.rmtree(place)
        if tries == kills:
            break
    for name, value in (("tries", tries), ("survived", survived), ("lost_rows", lost)):
        record_property(name, value)
    assert not faults, "\n".join(faults)
    assert (tries, lost) == (kills, 0)


@pytest.mark.fault("kill -9, SIGTERM, Ctrl-C in training")
@pytest.mark.timeout(900)
def test_p2_kills_of_train_end_in_the_same_hashes(
    commands: Commands, finished: Finished, kills: int, tmp_path: Path, record_property: Record
) -> None:
    kill_at_random_moments(commands, finished, kills, tmp_path, record_property, stage="train")


@pytest.mark.fault("kill -9 of extract, fit_heads and predict at random moments")
@pytest.mark.timeout(900)
def test_p2_kills_of_extract_end_in_the_same_hashes(
    commands: Commands, finished: Finished, kills: int, tmp_path: Path, record_property: Record
) -> None:
    kill_at_random_moments(commands, finished, kills, tmp_path, record_property, stage="extract")


@pytest.mark.fault("kill -9 of extract, fit_heads and predict at random moments")
@pytest.mark.timeout(900)
def test_p2_kills_of_fit_heads_end_in_the_same_hashes(
    commands: Commands, finished: Finished, kills: int, tmp_path: Path, record_property: Record
) -> None:
    kill_at_random_moments(commands, finished, kills, tmp_path, record_property, stage="fit_heads")


@contextlib.contextmanager
def busy_cores() -> Iterator[None]:
    """Keep every core busy with a process that counts."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count() or 1)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def extract_by_default(run: Path, *, after: float | None = None) -> tuple[int, float]:
    """Run `python -m pipeline.extract --run RUN`, killed after some seconds; return its exit code and its seconds."""
    start = time.monotonic()
    words = [sys.executable, "-m", "pipeline.extract", "--run", str(run)]
    process = subprocess.Popen(
        words, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        process.wait(after)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        process.wait()
    return process.returncode, time.monotonic() - start


@pytest.mark.fault("kill -9 of extract, fit_heads and predict at random moments")
@pytest.mark.timeout(1800)
def test_p6_default_options_repeat_to_the_bit_after_kills_on_a_busy_machine(
    commands: Commands, kills: int, tmp_path: Path, record_property: Record
) -> None:
    """Engine, precision, batch, threads and workers are the command's own choice."""
    write_tiles(tmp_path / "tiles", per_class=600)
    run = tmp_path / "run"
    prepared = ["--run", str(run), "--data", str(tmp_path / "tiles"), "--protocol", "random"]
    assert commands.run("prepare", prepared).code == 0
    assert commands.run("train", train_words(run, "--epochs", "1", "--batch-size", "64")).code == 0
    code, _ = extract_by_default(run)
    assert code == 0
    expected = sha256_file(run / "embeddings.h5")
    seed = random.SystemRandom().getrandbits(32)
    print(f"moments drawn from seed {seed}")
    moments = random.Random(seed)
    (tmp_path / "whole").mkdir()
    for path in run.glob("embeddings*"):
        path.rename(tmp_path / "whole" / path.name)
    tries = survived = lost = 0
    with busy_cores():
        _, took = extract_by_default(shutil.copytree(run, tmp_path / "timed"))
        for i in range(4 * kills):
            copy = shutil.copytree(run, tmp_path / str(i))
            code, _ = extract_by_default(copy, after=moments.uniform(0, took))
            if code == 0:
                continue  # it was faster this time
            code, _ = extract_by_default(copy)
            assert code == 0
            same = sha256_file(copy / "embeddings.h5") == expected
            tries, survived, lost = tries + 1, survived + same, lost + 1200 * (not same)
            shutil.rmtree(copy)
            if tries == kills:
                break
    for name, value in (("tries", tries), ("survived", survived), ("lost_rows", lost)):
        record_property(name, value)
    assert (tries, survived) == (kills, kills)


CHANGED = {
    "prepare": ("--seed", "1"),
    "train": ("--lr", "0.002"),
    "extract": ("--dtype", "float16"),
    "baselines": ("--baseline-px", "40"),
    "fit_heads": ("--rounds", "3"),
    "robustness": ("--corruptions", "blur"),
    "report": ("--draws", "120"),
}
"""Other options, so that old and new results differ."""

SHARE = {"extract": 1.0, "fit_heads": 0.5, "train": 0.2}
"""Of the number of kills: steps at which a stage dies; other stages a tenth."""


@pytest.mark.fault("kill -9 or loss of power at each step of writing")
@pytest.mark.timeout(900)
@pytest.mark.parametrize("power", [False, True], ids=["killed", "power-lost"])
@pytest.mark.parametrize("stage", list(CHANGED))
def test_p1_a_death_at_any_step_of_writing_leaves_old_or_new(
    commands: Commands,
    finished: Finished,
    kills: int,
    tmp_path: Path,
    record_property: Record,
    stage: str,
    *,
    power: bool,
) -> None:
    """A result is replaced by another one; with the power all is lost that was not fsynced."""
    run = finished.copy(tmp_path / "whole", after=stage)
    argv = [*WORDS[stage](run), *CHANGED[stage], "--restart", "--force"]
    before = {name: sha256_file(run / name) for name in MADE[stage]}
    counted = commands.steps(stage, argv, folder=run)
    assert counted.code == 0, counted.said
    steps = int(counted.said)
    after = {name: sha256_file(run / name) for name in MADE[stage]}
    assert all(before[name] != after[name] for name in before if name not in ("heads/svm.skops", "model.json"))
    faults: list[str] = []
    points = np.unique(
        np.linspace(1, steps, min(steps, max(3, round(SHARE.get(stage, 0.1) * kills)))).round().astype(int)
    )
    survived = 0
    for point in points.tolist():
        run = finished.copy(tmp_path / str(point), after=stage)
        argv = [*WORDS[stage](run), *CHANGED[stage], "--restart", "--force"]
        died = commands.steps(stage, argv, folder=run, die_at=point, power=power)
        assert died.code == DEAD, died.said
        found = []
        for name in MADE[stage]:
            there = sha256_file(run / name)
            if there not in (before[name], after[name]):
                found.append(f"{name} is neither old nor new")
        again = commands.run(stage, argv)
        found += [again.said] * (again.code != 0)
        found += [f"{name} is not made again" for name in MADE[stage] if sha256_file(run / name) != after[name]]
        found += [
            f"{name} is not vouched for" for name in MADE[stage] if name != "model.json" and not vouched(run / name)
        ]
        found += [f"{path.name} is left" for path in temporaries(run)]
        faults += [f"step {point} of {steps}: {fault}" for fault in found]
        survived += not found
        shutil.rmtree(tmp_path / str(point))
    for name, value in (("tries", len(points)), ("survived", survived)):
        record_property(name, value)
    assert not faults, "\n".join(faults)
