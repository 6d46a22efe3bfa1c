"""P3: no Python file of the current folder is imported, whatever it is called."""

import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from pipeline.names import COMMANDS

ROOT = Path(__file__).parents[2]
"""The folder that this checkout's package is imported from."""

SCRIPT = """
import sys
from pipeline.cli.main import main
if __name__ == "__main__":
    sys.exit(main())
"""
"""What an installer writes for `[project.scripts]`."""

TRAINING = "--arch resnet10 --epochs 1 --tile-px 32 --batch-size 8 --threads 1 --workers 1 --device cpu"


def loaded_by_python_itself(folder: Path) -> set[str]:
    """Return what `python -m` imports before any package: nothing that a package does can prevent it."""
    (folder / "probe").mkdir()
    (folder / "probe" / "__init__.py").touch()
    (folder / "probe" / "__main__.py").write_text("import sys; print(*sys.modules)")
    done = subprocess.run([sys.executable, "-m", "probe"], cwd=folder, capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in done.stdout.split()}


@pytest.fixture(scope="module")
def trap(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a file for every module of every dependency and of the standard library; each leaves its name."""
    folder = tmp_path_factory.mktemp("trap")
    names = set(metadata.packages_distributions()) | sys.stdlib_module_names
    names -= loaded_by_python_itself(tmp_path_factory.mktemp("probe")) | {"pipeline"}
    assert {"tyro", "torch", "xgboost", "h5py", "PIL", "dask", "json", "logging"} <= names
    for name in names:
        if name.isidentifier():
            (folder / f"{name}.py").write_text("import os; open(os.environ['CAUGHT'], 'a').write(__name__ + ' ')\n")
    # A .pth file of site-packages runs before any package and tries modules of other systems, such as `nt`.
    early = tmp_path_factory.mktemp("early") / "caught"
    done = run_in(folder, [sys.executable, "-c", ""], early, PYTHONPATH=str(folder))
    assert done.returncode == 0
    for name in early.read_text().split() if early.exists() else []:
        (folder / f"{name}.py").unlink()
    return folder


def run_in(folder: Path, command: list[str], caught: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a folder; what its modules leave is written into `caught`."""
    given = {"PYTHONPATH": str(ROOT), "CAUGHT": str(caught), "OMP_NUM_THREADS": "1"} | environment
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, env=clean | given)


@pytest.mark.parametrize("name", ["", *(f".{name}" for name in COMMANDS)])
def test_no_command_imports_it(trap: Path, name: str, tmp_path: Path) -> None:
    done = run_in(trap, [sys.executable, "-m", f"pipeline{name}", "--version"], tmp_path / "caught")
    assert (done.returncode, done.stderr) == (0, "")
    assert not (tmp_path / "caught").exists()


@pytest.mark.parametrize("entries", ["{root}:", ":{root}", "{root}:.", "{root}:{here}"])
def test_nor_by_an_entry_of_pythonpath_that_is_the_current_folder(trap: Path, tmp_path: Path, entries: str) -> None:
    path = entries.format(root=ROOT, here=trap)
    done = run_in(trap, [sys.executable, "-m", "pipeline.verify", "--version"], tmp_path / "caught", PYTHONPATH=path)
    assert done.returncode == 0
    assert not (tmp_path / "caught").exists()


def test_the_console_script_does_not_even_import_a_file_with_the_name_of_this_package(
    trap: Path, tmp_path: Path
) -> None:
    script = tmp_path / "bin" / "histoheads"
    script.parent.mkdir()
    script.write_text(SCRIPT)
    (trap / "pipeline.py").write_text((trap / "tyro.py").read_text())
    try:
        done = run_in(trap, [sys.executable, str(script), "train", "--version"], tmp_path / "caught")
    finally:
        (trap / "pipeline.py").unlink()
    assert done.returncode == 0
    assert not (tmp_path / "caught").exists()


def test_a_stage_on_the_files_of_such_a_folder(trap: Path, tmp_path: Path, prepared_base: Path) -> None:
    """`cd data_set; python -m pipeline.prepare --data .`, with a class folder next to the files."""
    words = f"--run {tmp_path / 'run'} --data {prepared_base / 'tiles'} --protocol random --workers 1"
    done = run_in(trap, [sys.executable, "-m", "pipeline.prepare", *words.split()], tmp_path / "caught")
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "caught").exists()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_no_stage_no_worker_and_no_process_of_a_cluster_imports_it(
    trap: Path, tmp_path: Path, prepared_base: Path
) -> None:
    """P5: what libraries would keep in TMPDIR and in the home folder is gone afterwards."""
    run, places = tmp_path / "run", {name: str(tmp_path / name) for name in ("TMPDIR", "HOME")}
    for place in places.values():
        Path(place).mkdir()
    words = f"--run {run} --data {prepared_base / 'tiles'} --protocol random {TRAINING} --rounds 2"
    commands = [
        f"-m pipeline {words}",
        f"-m pipeline.extract --run {run} --engine openvino --device cpu --threads 1 --workers 1 --restart",
        f"-m pipeline.fit_heads --run {run} --cluster local --threads 2 --memory 3GB --restart --rounds 2",
        f"-m pipeline.export --run {run} --to csv --out {tmp_path / 'table.csv'}",
        f"-m pipeline.doctor --device cpu --folder {tmp_path}",
    ]
    for command in commands:
        done = run_in(trap, [sys.executable, *command.split()], tmp_path / "caught", **places)
        assert done.returncode == 0, done.stderr
        assert not (tmp_path / "caught").exists(), command
        assert not [path for place in places.values() for path in Path(place).rglob("*")], command


@pytest.mark.slow
def test_no_process_of_torchrun_imports_it(trap: Path, tmp_path: Path, prepared_run: Path) -> None:
    words = f"--standalone --nproc-per-node 2 -m -- pipeline.train --run {prepared_run} {TRAINING} --rounds 2".replace(
        "--rounds 2", ""
    )
    launcher = "import sys; from torch.distributed.run import main; sys.exit(main())"  # as the script torchrun
    start = f"import sys; sys.path[:] = [p for p in sys.path if p]; {launcher}"
    done = run_in(trap, [sys.executable, "-c", start, *words.split()], tmp_path / "caught")
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "caught").exists()


def test_a_checkout_works_without_being_installed(tmp_path: Path) -> None:
    done = run_in(ROOT, [sys.executable, "-m", "pipeline.verify", "--version"], tmp_path / "caught", PYTHONPATH="")
    assert done.returncode == 0
    probe = "import sys; sys.argv[0] = '-m'; import pipeline, os; print('' in sys.path, 'PYTHONSAFEPATH' in os.environ)"
    done = run_in(ROOT, [sys.executable, "-c", probe], tmp_path / "caught")
    assert done.stdout == "True False\n"


def test_an_import_in_a_program_leaves_its_path_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.py").touch()
    program = "import pipeline, mine, os; print('PYTHONSAFEPATH' in os.environ)"
    done = run_in(tmp_path, [sys.executable, "-c", program], tmp_path / "caught")
    assert done.stdout == "False\n"
