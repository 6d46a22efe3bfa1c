"""Small finished runs: a single split and a plan of two folds."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline import extract, fit_heads, prepare, report, train

FAST = ("--draws", "100", "--map", "none", "--gallery", "0")


@pytest.fixture(scope="session")
def reported_base(fitted_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with a report; copied, never changed."""
    base = tmp_path_factory.mktemp("reported") / "base"
    shutil.copytree(fitted_base, base)
    assert report.main(["--run", str(base / "run"), *FAST]) == 0
    return base / "run"


@pytest.fixture
def reported_run(reported_base: Path, tmp_path: Path) -> Path:
    """This test's own copy of a run folder with a report."""
    shutil.copytree(reported_base.parent, tmp_path / "reported")
    return tmp_path / "reported" / "run"


@pytest.fixture(scope="session")
def reported_plan(
    prepared_base: Path, tmp_path_factory: pytest.TempPathFactory, words: Callable[..., list[str]]
) -> Path:
    """The run folder of a plan of two folds with a report; tests only read it."""
    base = tmp_path_factory.mktemp("plan")
    shutil.copytree(prepared_base / "tiles", base / "tiles")
    run = base / "run"
    data = ["--data", str(base / "tiles"), "--group-regex", r"(S\d)_", "--protocol", "logo", "--folds", "2"]
    assert prepare.main(["--run", str(run), *data, "--workers", "1"]) == 0
    assert train.main([*words("train", run), "--epochs", "1"]) == 0
    assert extract.main(words("extract", run)) == 0
    assert fit_heads.main(["--run", str(run), "--threads", "1", "--rounds", "4", "--no-baselines"]) == 0
    assert report.main(["--run", str(run), *FAST]) == 0
    return run
