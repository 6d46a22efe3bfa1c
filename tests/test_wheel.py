"""The wheel and the sdist are complete: the command runs from an empty environment outside of the checkout."""

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow


def call(*words: object, **options: object) -> str:
    """Run a command, and return what it printed; its messages are shown if it fails."""
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stdout + done.stderr
    return str(done.stdout) + str(done.stderr)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the sdist, built from the committed and new files of the checkout."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    files = call("git", "-C", ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")
    wanted = [name for name in files if name.startswith("pipeline/") or "/" not in name]
    for name in filter(None, wanted):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    call(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, source)
    return out


@pytest.fixture(scope="module")
def command(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`histoheads` of a new environment that has the wheel, and the libraries of this one."""
    place = tmp_path_factory.mktemp("environment")
    venv.create(place, with_pip=False)
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(place)}))
    libraries = [path for path in sys.path if "site-packages" in path]
    (packages / "libraries.pth").write_text("\n".join(libraries) + "\n")
    (wheel,) = built.glob("*.whl")
    call(
        sys.executable,
        "-m",
        "pip",
        "--python",
        place / "bin" / "python",
        "install",
        "--no-deps",
        "--force-reinstall",
        "--no-index",
        wheel,
    )
    return place / "bin" / "histoheads"


def test_metadata_and_contents_are_in_order(built: Path) -> None:
    files = sorted(built.iterdir())
    assert [path.suffix for path in files] == [".whl", ".gz"]
    call(sys.executable, "-m", "twine", "check", "--strict", *files)
    call(sys.executable, "-m", "check_wheel_contents", files[0])


def test_the_main_job_runs_outside_of_the_checkout(command: Path, tmp_path: Path) -> None:
    """The work folder is readable only, HOME is not set; the package folder gets no new file."""
    package = Path(call(command.parent / "python", "-c", "import pipeline; print(pipeline.__path__[0])", cwd=tmp_path))
    package = Path(str(package).strip())
    assert ROOT not in package.parents
    before = {path for path in package.rglob("*") if path.suffix != ".pyc" and path.name != "__pycache__"}
    here = tmp_path / "here"
    here.mkdir()
    here.chmod(0o555)
    environment = {name: value for name, value in os.environ.items() if name not in ("HOME", "PYTHONPATH")}
    small = [
        "--demo-tiles",
        "240",
        "--demo-px",
        "64",
        "--tile-px",
        "32",
        "--arch",
        "resnet10",
        "--epochs",
        "1",
        "--baseline-px",
        "32",
        "--draws",
        "100",
    ]
    words = ["--run", tmp_path / "run", "--data-dir", tmp_path / "data", *small, "--threads", "1", "--workers", "0"]
    call(command, *words, cwd=here, env=environment)
    assert (tmp_path / "run" / "report.html").is_file()
    call(command, "verify", "--run", tmp_path / "run", cwd=here, env=environment)
    assert "0.1.0" in call(command, "--version", cwd=here, env=environment)
    after = {path for path in package.rglob("*") if path.suffix != ".pyc" and path.name != "__pycache__"}
    assert after == before
