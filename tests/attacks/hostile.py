"""What a stranger can make, and what shows that it did harm: a marker file, memory, files in other places."""

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from pipeline.errors import PipelineError
from pipeline.storage import records


class Evil:
    """Unpickled, it makes a folder: the sign that a file ran code."""

    def __init__(self, marker: Path) -> None:
        self.marker = str(marker)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (self.marker,)


class Outcome(NamedTuple):
    """How an attack in a process of its own ended."""

    code: int
    """Exit code, negative for a signal."""

    said: str
    """"ok", or the class and line of the PipelineError."""

    peak_mb: float
    """Memory that the call took beyond what was taken before."""


PROBE = """
import json, sys
from pathlib import Path
from pipeline.errors import PipelineError
{imports}

def peak_mb():
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1000

{begin}
for name in sys.argv[1:]:
    path = Path(name)
    before = peak_mb()
    try:
        {call}
        said = "ok"
    except PipelineError as error:
        said = f"{{type(error).__name__}}: {{error}}"
    print(json.dumps([name, said, peak_mb() - before]), flush=True)
"""


def in_own_process(
    paths: Iterable[Path], call: str, *, imports: str, begin: str = "", timeout_s: float = 60
) -> list[Outcome]:
    """Run `call` (of `path`) on each file in a process of its own; it must not take longer than `timeout_s`."""
    names = [str(path) for path in paths]
    code = PROBE.format(imports=imports, begin=begin, call=call)
    done = subprocess.run(
        [sys.executable, "-c", code, *names], capture_output=True, text=True, timeout=timeout_s, check=False
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line[0] for line in lines] == names, f"ended with {done.returncode}: {done.stderr[-2000:]}"
    return [Outcome(done.returncode, said, peak) for _, said, peak in lines]


needs_proc = pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="memory is read from /proc")


def refused(kind: type[PipelineError], match: str, function: Callable[..., object], *words: Any, **more: Any) -> str:
    """Check that a call is refused by one line."""
    with pytest.raises(kind, match=match) as caught:
        function(*words, **more)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def vouch(path: Path, schema: str, *, stage: str = "fit_heads", inputs: Sequence[Path] = (), **more: Any) -> Path:
    """Write a record that fits the file: whoever can write a file can write its record."""
    records.write_record(records.Artifact(path, schema, stage, inputs=inputs), **more)
    return path


def repack(source: Path, target: Path, members: Mapping[str, bytes]) -> None:
    """Copy a zip archive, compressed, with other content for the members whose names end so."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            data = next((data for end, data in members.items() if name.endswith(end)), None)
            new.writestr(name, old.read(name) if data is None else data)


def names_in(folder: Path) -> set[str]:
    """Return all files and folders below, by relative name."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}
