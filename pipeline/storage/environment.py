"""Describe versions and git state for records."""

import functools
import platform
import shutil
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

from pipeline import __version__

PACKAGES = ("torch", "torchvision", "scikit-learn", "scikit-image", "xgboost", "numpy", "pandas", "joblib", "h5py")
"""Packages whose versions are in every record."""


def versions() -> dict[str, str | None]:
    """Return the versions of this package and of `PACKAGES`, without importing them."""
    found: dict[str, str | None] = {"histoheads": __version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:  # another build of it, such as xgboost-cpu
            found[name] = None
    return found


@functools.cache
def git_state() -> dict[str, Any] | None:
    """Return the commit of the checkout this code runs from and whether it is dirty; None outside a checkout.

    Commands call this when they start. The result is cached: the checkout may change while a long stage runs.
    """
    root = Path(__file__).resolve().parents[2]
    git = shutil.which("git")
    if git is None or not (root / ".git").exists():
        return None

    def git_output(*words: str) -> str | None:
        done = subprocess.run([git, "-C", str(root), *words], capture_output=True, text=True, check=False)  # noqa: S603
        return done.stdout.strip() if done.returncode == 0 else None

    commit = git_output("rev-parse", "HEAD")
    changed = git_output("status", "--porcelain", "--untracked-files=no", "--", "pipeline")
    return None if commit is None else {"commit": commit, "dirty": bool(changed)}
