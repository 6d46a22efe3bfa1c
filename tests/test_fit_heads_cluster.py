"""fit_heads --cluster: the same files as on one machine, and one line where the cluster fails."""

import json
import os
import signal
from pathlib import Path

import pytest

from pipeline.heads import memory_budget
from pipeline.heads.cluster import client
from pipeline.heads.cluster import fit as spread
from pipeline.storage import records
from pipeline.storage.predictions.csv_table import read_predictions

from .builders import make_run
from .test_fit_heads import fit

pytest.importorskip("distributed")

LOCAL = ("--cluster", "local", "--memory", "6GB", "--threads", "2")


@pytest.mark.slow
@pytest.mark.parametrize("fit_on", ["train", "heldout"])
def test_a_cluster_fits_the_heads_that_one_machine_fits(tmp_path: Path, fit_on: str) -> None:
    plain, clustered = (make_run(tmp_path / name, n=200) for name in ("plain", "clustered"))
    assert fit(plain, "--fit-on", fit_on) == 0
    assert fit(clustered, "--fit-on", fit_on, *LOCAL) == 0
    for name in ("predictions.csv", "heads/svm.skops", "heads/xgboost.ubj"):
        assert (clustered / name).read_bytes() == (plain / name).read_bytes(), name
    assert not list(clustered.glob(".*tmp"))


@pytest.mark.slow
def test_rows_that_do_not_fit_are_fitted_by_all_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_budget, "needed", lambda *rows, svm_rows: 10**18)
    run = make_run(tmp_path / "run", n=300)
    assert fit(run, "--fit-on", "heldout", "--rounds", "20", *LOCAL) == 0
    table = read_predictions(run / "predictions.csv")
    right = (table["predicted"] == table["label"]).groupby([table["head"], table["split"]]).mean()
    assert right["svm", "test"] > 0.7
    assert right["xgboost", "test"] > 0.6
    assert records.read_record(run / "predictions.csv")["options"]["cluster"] is True
    heads = json.loads((run / "heads/heads.json").read_text())["heads"]
    assert "boosted by 2 workers together" in heads["xgboost"]["notes"]
    assert not list(run.glob(".*tmp"))


@pytest.mark.fault("a cluster that does not answer, or has other versions")
def test_an_address_that_does_not_answer_is_one_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "ANSWER_S", 0.5)
    run = make_run(tmp_path / "run")
    assert fit(run, "--cluster", "tcp://127.0.0.1:1") == 1
    told = capfd.readouterr().err
    assert told.count("\n") == 1
    assert "--cluster tcp://127.0.0.1:1: no Dask scheduler with a worker answers there" in told
    assert not list(run.glob(".*tmp"))


@pytest.mark.parametrize("address", ["elsewhere", "tcp://host", "http://host:80", "tcp://:8786"])
def test_what_is_no_address_is_a_usage_error(tmp_path: Path, capfd: pytest.CaptureFixture[str], address: str) -> None:
    assert fit(make_run(tmp_path / "run"), "--cluster", address) == 2
    assert f"--cluster {address}: local, or tcp://host:port" in capfd.readouterr().err


@pytest.mark.fault("a worker of a cluster is lost")
@pytest.mark.timeout(900)
@pytest.mark.slow
def test_a_worker_lost_in_the_midst_of_training_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The SVM, which was there already, stays; the same command ends as if nothing had happened."""

    def dying(part: spread.Part) -> bytes:
        if part.rabit["dmlc_task_id"] == "00001":
            os.kill(os.getpid(), signal.SIGKILL)
        return work(part)

    monkeypatch.setattr(memory_budget, "needed", lambda *rows, svm_rows: 10**18)
    undisturbed, run = (make_run(tmp_path / name, n=200) for name in ("undisturbed", "run"))
    assert fit(undisturbed, *LOCAL) == 0
    work = spread._boost_part
    with monkeypatch.context() as patch:
        patch.setattr(spread, "_boost_part", dying)
        capfd.readouterr()
        assert fit(run, *LOCAL) == 1
    errors = [line for line in capfd.readouterr().err.splitlines() if "fit_heads:" not in line]
    assert len(errors) == 1, errors
    assert "one of 2 workers that train together was lost" in errors[0]
    assert not list(run.glob(".*tmp"))
    assert not (run / "predictions.csv").exists()
    assert fit(run, *LOCAL) == 0
    assert "heads/svm.skops" in capfd.readouterr().err
    assert (run / "predictions.csv").read_bytes() == (undisturbed / "predictions.csv").read_bytes()
