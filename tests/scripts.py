"""Load the scripts of reports/ as modules."""

import importlib
import sys
from pathlib import Path
from types import ModuleType

REPORTS = Path(__file__).parents[1] / "reports"


def load_script(name: str) -> ModuleType:
    """Return a script as a module that finds its neighbours, e.g. "bench/stage_cost"."""
    folder, _, module = name.rpartition("/")
    sys.path.insert(0, str(REPORTS / folder))
    try:
        return importlib.import_module(module)
    finally:
        sys.path.remove(str(REPORTS / folder))
