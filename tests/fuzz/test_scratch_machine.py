"""P1 and P2 of an extraction under any order of stops, crashes, damage and changed inputs, with made-up rows.

What `pipeline.extract` does with its scratch, without the network: open, append batches, build the final file, remove.
"""

import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pipeline.errors import StaleInput
from pipeline.storage.embeddings.partial_rows import PartialRows, row_type
from pipeline.storage.embeddings.reader import read_embeddings
from pipeline.storage.embeddings.writer import write_embeddings

N, BATCH = 11, 4
ROW = row_type(3, 2)
CLASSES = ["ADI", "TUM"]


class KilledError(BaseException):
    """The process ends here."""


def computed(version: int, first: int, stop: int) -> np.ndarray:
    """Return the rows that the tiles of a version of the inputs give; what an uninterrupted run would store."""
    rows = np.zeros(stop - first, ROW)
    number = np.arange(first, stop)
    rows["features"] = (number[:, None] * 10 + np.arange(3)) + 1000 * version
    rows["logits"] = number[:, None] - np.arange(2)
    rows["sha256"] = (number[:, None] + version) % 256
    rows["status"] = number % 5 == 3
    for name in ("features", "logits", "sha256"):
        rows[name][rows["status"] != 0] = 0
    return rows


def table(version: int) -> pd.DataFrame:
    """Return the manifest of a version."""
    ids = [f"v{version}-{i}" for i in range(N)]
    return pd.DataFrame({"tile_id": ids, "path": ids, "group": "g", "label": "ADI", "split": "test"})


class Extraction(RuleBasedStateMachine):
    """Commands that a user may give and accidents that may befall them."""

    @initialize()
    def begin(self) -> None:
        """A run folder without any file."""
        self.folder = Path(tempfile.mkdtemp(prefix="extraction-"))
        self.out = self.folder / "embeddings.h5"
        self.version = 0
        self.begun: int | None = None
        """Version of the rows in the scratch; None: nothing there, or its header is no longer to be trusted."""
        self.header_lost = False
        self.finished: int | None = None
        """Version that the final file was made from."""

    def teardown(self) -> None:
        """Leave nothing behind."""
        if hasattr(self, "folder"):
            shutil.rmtree(self.folder)

    def scratch(self) -> PartialRows:
        """Return the scratch as a new process sees it."""
        return PartialRows(self.out, row=ROW, identity={"inputs": self.version}, batch=BATCH)

    def opened(self, *, restart: bool) -> tuple[PartialRows, int]:
        """Open the scratch and check that only whole batches of right rows are kept."""
        scratch = self.scratch()
        start = scratch.open(restart=restart)
        kept = np.concatenate([np.zeros(0, ROW), *scratch.blocks()])
        assert start % BATCH == 0
        assert len(kept) == start <= N
        right = computed(self.version, 0, start)
        for name in ("features", "logits", "sha256", "status"):
            np.testing.assert_array_equal(kept[name], right[name])
        self.begun, self.header_lost = self.version, False
        return scratch, start

    @property
    def is_refused(self) -> bool:
        """Whether the scratch holds rows that were begun with other inputs, or whose header cannot be read."""
        return self.header_lost or self.begun not in (None, self.version)

    @rule(batches=st.integers(0, 4), restart=st.booleans(), torn=st.integers(0, 2 * ROW.itemsize))
    def run(self, batches: int, *, restart: bool, torn: int) -> None:
        """Extract some batches; then the process is killed, perhaps in the middle of a write."""
        if self.is_refused and not restart:
            self.refuse()
            return
        scratch, start = self.opened(restart=restart)
        for first in list(range(start, N, BATCH))[:batches]:
            scratch.append(computed(self.version, first, min(first + BATCH, N)))
            start = min(first + BATCH, N)
        rest = computed(self.version, start, N)
        rest["crc"] = 7  # a torn row has no checksum yet, or another's
        with scratch.path.open("ab") as file:
            file.write(rest.tobytes()[:torn])

    def refuse(self) -> None:
        """Check that rows of other inputs are refused and left as they are."""
        scratch = self.scratch()
        before = scratch.path.read_bytes(), scratch.header.read_bytes()
        with pytest.raises(StaleInput, match="--restart"):
            scratch.open(restart=False)
        assert before == (scratch.path.read_bytes(), scratch.header.read_bytes())

    @rule(restart=st.booleans(), killed_after=st.none() | st.integers(0, 2))
    def finish(self, *, restart: bool, killed_after: int | None) -> None:
        """Extract to the end and build the final file; a kill may come while it is built or before the scratch goes."""
        if self.is_refused and not restart:
            self.refuse()
            return
        scratch, start = self.opened(restart=restart)
        for first in range(start, N, BATCH):
            scratch.append(computed(self.version, first, min(first + BATCH, N)))
        attrs = {
            "classes": CLASSES,
            "preprocess": {},
            "encoder": "trained",
            "layer": "avgpool",
            "model_sha256": "m",
            "manifest_sha256": str(self.version),
        }
        blocks = scratch.blocks
        if killed_after in (0, 1):

            def dying():
                yield from list(blocks())[:killed_after]
                raise KilledError

            scratch.blocks = dying  # type: ignore[method-assign]
            with pytest.raises(KilledError):
                write_embeddings(self.out, scratch, table(self.version), attrs=attrs)
            return
        write_embeddings(self.out, scratch, table(self.version), attrs=attrs)
        self.finished = self.version
        if killed_after is None:
            scratch.remove()
            self.begun = None

    @rule()
    def change_inputs(self) -> None:
        """The manifest is made anew."""
        self.version += 1

    def there(self) -> bool:
        """Whether there is a scratch with rows."""
        return self.out.with_name("embeddings.h5.partial").is_file() and self.scratch().path.stat().st_size > 0

    @precondition(lambda self: self.there())
    @rule(data=st.data())
    def flip_a_bit(self, data: st.DataObject) -> None:
        """The disk errs."""
        path = self.scratch().path
        content = bytearray(path.read_bytes())
        at = data.draw(st.integers(0, len(content) - 1))
        content[at] ^= 1 << data.draw(st.integers(0, 7))
        path.write_bytes(content)

    @precondition(lambda self: self.there())
    @rule(data=st.data(), zeros=st.booleans())
    def cut(self, data: st.DataObject, *, zeros: bool) -> None:
        """Power fails: the end of the file is missing, or zeros."""
        path = self.scratch().path
        size = path.stat().st_size
        os.truncate(path, data.draw(st.integers(0, size)))
        if zeros:
            os.truncate(path, size)

    @precondition(lambda self: self.there() and self.scratch().header.is_file())
    @rule(content=st.sampled_from([b"", b"{", b"[]", b"\xff", b'{"inputs": "another"}', None]))
    def spoil_the_header(self, content: bytes | None) -> None:
        """The header is lost (rows without one are dropped) or damaged (they are refused)."""
        header = self.scratch().header
        if content is None:
            header.unlink()
            self.begun, self.header_lost = None, False
        else:
            header.write_bytes(content)
            self.header_lost = True

    @invariant()
    def p1_a_final_file_is_complete(self) -> None:
        """P1 and P2: what stands under the final name is what an uninterrupted run would have written."""
        if not hasattr(self, "out"):
            return
        assert self.out.is_file() == (self.finished is not None)
        if self.finished is not None:
            found, right = read_embeddings(self.out), computed(self.finished, 0, N)
            np.testing.assert_array_equal(found.features, right["features"])
            np.testing.assert_array_equal(found.status, right["status"])
            assert found.tile_id == list(table(self.finished)["tile_id"])

    @invariant()
    def nothing_else_is_left(self) -> None:
        """The run folder holds the final file and its scratch, and no temporary."""
        if hasattr(self, "out"):
            left = {path.name for path in self.folder.iterdir()}
            assert left <= {"embeddings.h5", "embeddings.h5.partial", "embeddings.h5.partial.json"}


Extraction.TestCase.settings = settings(
    max_examples=40, stateful_step_count=20, deadline=None, derandomize=True, database=None
)
TestExtraction = Extraction.TestCase
TestExtraction.pytestmark = [pytest.mark.fault("kill -9 of extract, fit_heads and predict at random moments")]
