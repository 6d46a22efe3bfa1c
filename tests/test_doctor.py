"""What a bug report needs is printed."""

import shutil
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from pipeline import __version__, doctor
from pipeline.network.engines.select import OPENVINO_TILES
from pipeline.network.precision import default_precision
from pipeline.runtime.device import n_cores


def table(capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    lines = [line for line in capsys.readouterr().out.splitlines() if line]
    return {name.strip(): value for name, _, value in (line.partition("  ") for line in lines)}


def test_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.main(["--device", "cpu", "--folder", str(tmp_path)]) == 0
    found = table(capsys)
    assert found["histoheads"].strip() == __version__
    assert found["torch"].strip() == metadata.version("torch")
    assert found["device"].strip() == "cpu"
    assert found["threads"].strip() == str(n_cores())
    precision = default_precision(torch.device("cpu"))
    assert found[f"engine below {OPENVINO_TILES} tiles"].split(",")[0].strip() == f"torch {precision}"
    many = found[f"engine from {OPENVINO_TILES} tiles"].split(",")[0].strip()
    assert many == f"{'torch' if find_spec('openvino') is None else 'openvino'} {precision}"
    assert float(found["free memory"].split()[0]) > 0
    assert float(found["free disk"].split()[0]) == pytest.approx(shutil.disk_usage(tmp_path).free / 1e9, abs=1)


def test_a_missing_extra_is_named_with_its_pip_word(monkeypatch: pytest.MonkeyPatch) -> None:
    listed = ["torch>=2.6", 'dask>=2025.1; extra == "cluster"', "nosuch-package>=1; extra == 'large'"]
    monkeypatch.setattr(metadata, "requires", lambda name: listed)
    found = dict(doctor.extras())
    assert found["extra large"] == "missing (nosuch-package): pip install 'histoheads[large]'"
    assert found["extra cluster"] == "installed"
    assert found["extra audit"] == "installed"  # nothing is listed for it


def test_without_an_installation_extras_are_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> list[str]:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", missing)
    assert [name for name, _ in doctor.extras()] == ["extras"]


@pytest.mark.parametrize("words", [["--device", "gpu"], ["--folder", "none"]])
def test_wrong_words_are_usage(words: list[str]) -> None:
    assert doctor.main(words) == 2
