"""The examples are valid: scripts parse, the notebook runs on a run."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.mark.parametrize("script", sorted((EXAMPLES / "slurm").iterdir()), ids=lambda path: path.name)
def test_a_shell_script_parses(script: Path) -> None:
    subprocess.run(["bash", "-n", str(script)], check=True)


@pytest.mark.skipif(shutil.which("snakemake") is None, reason="snakemake is not installed")
def test_snakemake_plans_all_stages(tmp_path: Path) -> None:
    words = ["--snakefile", EXAMPLES / "Snakefile", "--cores", "1", "--dry-run", "--config", f"run={tmp_path / 'run'}"]
    done = subprocess.run(["snakemake", *map(str, words)], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "total             8" in done.stdout


def test_the_notebook_shows_its_outputs_and_names_no_machine() -> None:
    text = (EXAMPLES / "embeddings.ipynb").read_text(encoding="utf-8")
    cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    kinds = [output["output_type"] for cell in cells for output in cell["outputs"]]
    assert kinds.count("display_data") == 1  # the map: no picture of a tile
    assert "error" not in kinds
    assert not re.search(r"/(home|root|tmp|work|Users)/", text)
    assert not {output.get("name") for cell in cells for output in cell["outputs"]} & {"stderr"}


@pytest.mark.slow
def test_the_notebook_runs(fitted_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    monkeypatch.setenv("HISTOHEADS_RUN", str(fitted_run))
    notebook = nbformat.read(EXAMPLES / "embeddings.ipynb", as_version=4)
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert any("macro-F1" in str(output) for output in outputs)
