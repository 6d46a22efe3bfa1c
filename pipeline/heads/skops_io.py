"""Write a fitted scikit-learn pipeline as a skops file with the same bytes for the same object (P6), and read it.

skops names members by their address in memory, and a zip file stores the time. Both differ between runs.
"""

import io
import itertools
import re
import zipfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sklearn.exceptions import NotFittedError
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from pipeline.errors import BadArtifact
from pipeline.heads.base import SCHEMA, check_same_version
from pipeline.storage import records
from pipeline.storage.zip_guard import check_not_packed

ADDRESS = re.compile(r'("__id__": |"file": ")(\d+)')
"""An address in the schema; texts cannot match, because their quotation marks are escaped."""

TRUSTED: tuple[str, ...] = ()
"""Types beyond skops' own list that a head file may hold: none. Never taken from the file itself (P3)."""

LONG_AGO = (1980, 1, 1, 0, 0, 0)
"""The earliest time in a zip file."""


def stable_bytes(fitted: Any) -> bytes:
    """Return a skops file with members numbered in the order of the schema, and a constant time."""
    import skops.io

    numbers: defaultdict[str, str] = defaultdict(map(str, itertools.count()).__next__)
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(skops.io.dumps(fitted))) as source, zipfile.ZipFile(target, "w") as copy:
        schema = ADDRESS.sub(lambda match: match[1] + numbers[match[2]], source.read("schema.json").decode())
        members = {
            f"{numbers[address]}{dot}{suffix}": source.read(name)
            for name in source.namelist()
            for address, dot, suffix in [name.partition(".")]
            if name != "schema.json"
        }
        for name in sorted(members):
            copy.writestr(zipfile.ZipInfo(name, LONG_AGO), members[name])
        copy.writestr(zipfile.ZipInfo("schema.json", LONG_AGO), schema)
    return target.getvalue()


def load_pipeline(path: Path, kinds: Sequence[Sequence[type]]) -> Pipeline:
    """Read a skops file whose bytes are those of its record and whose types are on skops' list or ours.

    skops trusts all of scikit-learn. Some of its types read files or follow the numbers in their arrays unchecked:
    only a pipeline with the steps of one of `kinds`, each fitted, is returned.

    Raises:
        BadArtifact: no record, other bytes than were saved, another type in it, or not a pipeline of these kinds.
        StaleInput: scikit-learn has another minor version now.
    """
    check_same_version(path, records.check_artifact(path, schema=SCHEMA), "scikit-learn")
    check_not_packed(path)
    import skops.io
    from skops.io.exceptions import UntrustedTypesFoundException

    try:
        pipeline = skops.io.loads(path.read_bytes(), trusted=list(TRUSTED))
    except UntrustedTypesFoundException as error:
        raise BadArtifact(f"{path}: holds types that are not trusted ({' '.join(str(error).split())})") from None
    except Exception as error:  # noqa: BLE001  (zip, json and constructor errors all mean the same here)
        raise BadArtifact(f"{path}: not a readable skops file ({' '.join(str(error).split())[:120]})") from None
    if not _is_fitted(pipeline, kinds):
        raise BadArtifact(f"{path}: holds no fitted pipeline as fit_heads makes it: run fit_heads --restart")
    return pipeline


def _is_fitted(pipeline: object, kinds: Sequence[Sequence[type]]) -> bool:
    """Return whether an object is a pipeline with the steps of one of `kinds`, each fitted."""
    steps = getattr(pipeline, "steps", None)
    if type(pipeline) is not Pipeline or not isinstance(steps, list):
        return False
    if [type(step[-1]) for step in steps if isinstance(step, tuple)] not in [list(kind) for kind in kinds]:
        return False
    try:
        for _, step in steps:
            check_is_fitted(step)
    except NotFittedError:
        return False
    return True
