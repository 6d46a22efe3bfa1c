"""Keep the caches of libraries in a temporary folder that goes with the command (P5)."""

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

FONTS = "MPLCONFIGDIR"
"""Variable of matplotlib's folder, where it keeps its list of fonts."""

VARIABLES = {FONTS: "matplotlib", "TORCHINDUCTOR_CACHE_DIR": "kernels", "DASK_TEMPORARY_DIRECTORY": "dask"}
"""Variables by which libraries find the folders of their caches -> name of the folder here."""

SWITCHES = {"TORCHINDUCTOR_CPP_CACHE_PRECOMPILE_HEADERS": "0"}
"""Variables that switch off what would be kept elsewhere: torch puts compiled C++ headers into TMPDIR."""


@contextlib.contextmanager
def temporary_caches() -> Iterator[None]:
    """Let libraries keep their caches in a folder of this command, unless the user named one; remove it at the end.

    Raises:
        FileNotFoundError: no temporary folder can be written.
    """
    with tempfile.TemporaryDirectory(prefix="histoheads-", ignore_cleanup_errors=True) as folder:
        named = {name: str(Path(folder) / place) for name, place in VARIABLES.items() if name not in os.environ}
        if FONTS in named:
            _copy_font_lists(Path(named[FONTS]))
        named |= {name: value for name, value in SWITCHES.items() if name not in os.environ}
        os.environ.update(named)
        try:
            yield
        finally:
            for name in named:
                os.environ.pop(name, None)


def _copy_font_lists(folder: Path) -> None:
    """Copy the lists of fonts that matplotlib has made for the user: making one takes seconds."""
    with contextlib.suppress(OSError, RuntimeError):  # no such files, or no home
        cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        known = Path.home() / ".matplotlib" if sys.platform == "darwin" else Path(cache) / "matplotlib"
        folder.mkdir()
        for path in known.glob("fontlist-*.json"):
            shutil.copy(path, folder)
