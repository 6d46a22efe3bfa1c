"""Equal heads are equal files (P6), and load as skops' own files do."""

import io
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import skops.io
from sklearn.kernel_approximation import Nystroem
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from pipeline.heads.skops_io import stable_bytes

X = np.random.default_rng(0).normal(size=(30, 4))

FITTED = """
import hashlib, sys
sys.path.insert(0, {folder!r})
from test_skops_io import fitted
from pipeline.heads.skops_io import stable_bytes
filler = [object() for _ in range(int(sys.argv[1]))]
print(hashlib.sha256(b"".join(stable_bytes(fitted(name)) for name in ("svc", "landmarks"))).hexdigest())
"""


def fitted(name: str) -> Pipeline:
    """Return a pipeline of either kind that this project saves."""
    steps = {"svc": [SVC()], "landmarks": [Nystroem(n_components=8, random_state=0), LogisticRegression()]}
    return make_pipeline(StandardScaler(), *steps[name]).fit(X, np.arange(30) % 3)


@pytest.mark.parametrize("name", ["svc", "landmarks"])
def test_it_loads_as_what_it_was(name: str) -> None:
    before = fitted(name)
    after = skops.io.loads(stable_bytes(before))
    np.testing.assert_array_equal(before.decision_function(X), after.decision_function(X))
    assert stable_bytes(after) == stable_bytes(before)
    with zipfile.ZipFile(io.BytesIO(stable_bytes(before))) as members:
        assert {member.date_time for member in members.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert str(id(before)) not in members.read("schema.json").decode()


@pytest.mark.slow
@pytest.mark.fault("the same seed twice")
def test_two_processes_write_the_same_bytes() -> None:
    """With other addresses: the space of a process is laid out anew each time."""
    root = Path(__file__).parents[2]
    code = FITTED.format(folder=str(Path(__file__).parent))
    environment = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    hashes = [
        subprocess.run(
            [sys.executable, "-c", code, filler], check=True, capture_output=True, text=True, env=environment
        ).stdout
        for filler in ("1", "50000")
    ]
    assert hashes[0] == hashes[1]
