"""predictions.parquet: the columns of predictions.csv where it has more lines than a CSV file is good for.

Written and read block by block, a row group holding lines of one head only, so that a head is read without the others.
Names are never held as Python objects: tiles as Arrow's text, groups, splits and classes as codes.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from pipeline.errors import BadArtifact, PipelineError
from pipeline.names import SPLITS

COLUMNS = ("tile_id", "group", "split", "label", "head", "predicted")
"""Columns before the probabilities `p_<class>`, which stand in the order of the classes."""

PART_COLUMNS = ("seed", "fold")
"""Columns that only a plan's pooled predictions have in the file; readers fill in 0."""

BLOCK_ROWS = 100_000
"""Lines of a row group, at most: some 10 MB."""

CODED = ("group", "split", "label", "head", "predicted")
"""Texts that repeat."""

SUM_TOLERANCE = 1e-6
"""How far the probabilities of a row may be from 1: nine digits are written in a CSV file, float32 in Parquet."""

Refuse = Callable[[str], BadArtifact]


def require_pyarrow() -> Any:
    """Return the module pyarrow.parquet.

    Raises:
        PipelineError: it is not installed.
    """
    try:
        import pyarrow.parquet
    except ImportError:
        raise PipelineError(
            "so many predictions stand in a Parquet file, which needs pyarrow: pip install 'histoheads[large]'"
        ) from None
    return pyarrow.parquet


@contextlib.contextmanager
def parquet_lines(path: Path) -> Iterator[Callable[[pd.DataFrame], None]]:
    """Yield a function that adds lines of one head to a new Parquet file; probabilities become float32.

    Args:
        path: the file; it is whole when the block ends.
    """
    parquet = require_pyarrow()
    import pyarrow as pa

    writer = None

    def add(lines: pd.DataFrame) -> None:
        nonlocal writer
        types = dict.fromkeys(COLUMNS, pa.string()) | dict.fromkeys(PART_COLUMNS, pa.int32())
        schema = pa.schema([(name, types.get(name, pa.float32())) for name in lines.columns])
        if writer is None:
            texts = list(CODED)
            writer = parquet.ParquetWriter(path, schema, compression="zstd", use_dictionary=texts)
        for start in range(0, len(lines), BLOCK_ROWS):
            block = lines.iloc[start : start + BLOCK_ROWS]
            arrays = [pa.array(block[field.name].to_numpy().astype(_numpy(field.type, pa))) for field in schema]
            writer.write_table(pa.table(arrays, schema=schema), row_group_size=BLOCK_ROWS)

    try:
        yield add
    finally:
        if writer is not None:
            writer.close()


def _numpy(kind: Any, pa: Any) -> Any:
    return {pa.float32(): np.float32, pa.int32(): np.int32}.get(kind, object)


class Block(NamedTuple):
    """Lines of one head."""

    start: int
    """Number of its lines before these."""

    batch: Any
    """pyarrow.RecordBatch of the columns that were asked for."""


class LargePredictions:
    """A predictions.parquet; nothing is held but where the lines of each head stand.

    Raises:
        BadArtifact: not readable, or not what the schema says; names the rule.
    """

    def __init__(self, path: Path, refuse: Refuse) -> None:
        self.path = path
        self.refuse = refuse
        parquet = require_pyarrow()
        with self._readable():
            self.file = parquet.ParquetFile(path, read_dictionary=list(CODED))
            names = list(self.file.schema_arrow.names)
        rest = names[len(COLUMNS) :]
        self.pooled = tuple(rest[:2]) == PART_COLUMNS
        self.p_names = rest[2:] if self.pooled else rest
        is_text = names[: len(COLUMNS)] == list(COLUMNS)
        if not is_text or len(self.p_names) < 2 or any(name[:2] != "p_" for name in self.p_names):
            raise refuse(f"its columns are not {', '.join(COLUMNS)}, p_<class>, ...")
        self._check_types()
        self.classes = [name[2:] for name in self.p_names]
        self.row_groups = self._row_groups()
        lengths = {
            head: sum(self.file.metadata.row_group(i).num_rows for i in own) for head, own in self.row_groups.items()
        }
        self.n_rows = next(iter(lengths.values()), 0)
        if not self.n_rows:
            raise refuse("no rows")
        if set(lengths.values()) != {self.n_rows}:
            raise refuse("the heads do not stand on the same rows")

    @property
    def heads(self) -> list[str]:
        """Names of the heads in the order of the file."""
        return list(self.row_groups)

    @contextlib.contextmanager
    def _readable(self) -> Iterator[None]:
        import pyarrow as pa

        try:
            yield
        except BadArtifact:
            raise
        except (pa.ArrowException, OSError, ValueError, KeyError, IndexError, MemoryError) as error:
            raise self.refuse(f"not a readable Parquet file ({' '.join(str(error).split())[:120]})") from None

    def _check_types(self) -> None:
        import pyarrow as pa

        schema = self.file.schema_arrow
        text = pa.dictionary(pa.int32(), pa.string())
        wanted = {"tile_id": pa.string()} | dict.fromkeys(CODED, text) | dict.fromkeys(self.p_names, pa.float32())
        wanted |= dict.fromkeys(PART_COLUMNS, pa.int32()) if self.pooled else {}
        for name, kind in wanted.items():
            if schema.field(name).type != kind:
                raise self.refuse(f"the column {name} is {schema.field(name).type}, {kind} is needed")

    def _row_groups(self) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        with self._readable():
            for i in range(self.file.metadata.num_row_groups):
                column = self.file.read_row_group(i, columns=["head"]).column(0)
                names = column.unique().to_pylist()
                if len(names) != 1 or names[0] is None:
                    raise self.refuse("a row group holds lines of several heads")
                found.setdefault(names[0], []).append(i)
        return found

    def blocks(self, head: str, columns: Sequence[str]) -> Iterator[Block]:
        """Yield the lines of a head in the order of the file.

        Raises:
            BadArtifact: they cannot be read, or a value is missing.
        """
        start = 0
        with self._readable():
            for batch in self.file.iter_batches(BLOCK_ROWS, row_groups=self.row_groups[head], columns=list(columns)):
                if any(column.null_count for column in batch.columns):
                    raise self.refuse("a cell is empty")
                if start + len(batch) > self.n_rows:
                    break
                yield Block(start, batch)
                start += len(batch)
        if start != self.n_rows:
            raise self.refuse("its row groups do not hold as many lines as they say")

    def probabilities(self, head: str) -> Iterator[tuple[int, np.ndarray]]:
        """Yield the number of lines before, and (n, K) float32 probabilities of the next n lines of a head.

        Raises:
            BadArtifact: they are no probabilities.
        """
        for start, batch in self.blocks(head, self.p_names):
            yield start, self._matrix(batch)

    def _matrix(self, batch: Any) -> np.ndarray:
        p = np.empty((len(batch), len(self.p_names)), np.float32)
        for k, name in enumerate(self.p_names):
            p[:, k] = batch.column(name).to_numpy()
        sums = p.sum(axis=1, dtype=np.float64)
        if not np.isfinite(p).all() or (p < 0).any() or (abs(sums - 1) > SUM_TOLERANCE).any():
            raise self.refuse("a row's probabilities are no numbers from 0 up that sum to 1")
        return p

    def probabilities_of(self, head: str, rows: np.ndarray) -> np.ndarray:
        """Return (M, K) float64 probabilities of M rows of a head; only the row groups that hold them are read."""
        found = np.empty((len(rows), len(self.p_names)))
        start = 0
        with self._readable():
            for i in self.row_groups[head]:
                stop = start + self.file.metadata.row_group(i).num_rows
                wanted = np.flatnonzero((rows >= start) & (rows < stop))
                if len(wanted):
                    group = self.file.read_row_group(i, columns=self.p_names).combine_chunks()
                    found[wanted] = self._matrix(group.to_batches()[0])[rows[wanted] - start]
                start = stop
        return found

    def codes(self, head: str, name: str, known: Mapping[str, int] | None = None) -> tuple[np.ndarray, list[str]]:
        """Return (N,) codes of a column that repeats, int16 of known names, else int32, and what they stand for.

        Args:
            head: whose lines.
            name: group, split, label or predicted.
            known: name -> code; None: codes in the order of the names.

        Raises:
            BadArtifact: a name that is not known.
        """
        code = {} if known is None else dict(known)
        found = np.empty(self.n_rows, np.int32 if known is None else np.int16)
        for start, batch in self.blocks(head, [name]):
            with self._readable():
                column = batch.column(0)
                names, places = column.dictionary.to_pylist(), column.indices.to_numpy()
            if None in names or (known is not None and not set(names) <= set(code)):
                raise self.refuse("a label or split is unknown")
            if places.min(initial=0) < 0 or places.max(initial=0) >= len(names):
                raise self.refuse("a cell stands for no text")
            for each in names:
                code.setdefault(each, len(code))
            found[start : start + len(batch)] = np.array([code[each] for each in names], found.dtype)[places]
        if known is not None:
            return found, list(code)
        order = sorted(code)
        rank = np.empty(len(order), np.int32)
        rank[[code[each] for each in order]] = np.arange(len(order))
        return rank[found], order

    def numbers(self, head: str, name: str) -> np.ndarray:
        """Return (N,) int32 of seed or fold; zeros where the file has none."""
        found = np.zeros(self.n_rows, np.int32)
        for start, batch in self.blocks(head, [name]) if self.pooled else ():
            found[start : start + len(batch)] = batch.column(0).to_numpy()
        return found

    def names(self) -> tuple[Any, np.ndarray]:
        """Return the rows' tile_id as Arrow's text, and (N,) uint64 hashes of them."""
        import pyarrow as pa

        chunks = []
        hashes = np.empty(self.n_rows, np.uint64)
        for start, batch in self.blocks(self.heads[0], ["tile_id"]):
            with self._readable():
                hashes[start : start + len(batch)] = hash_names(batch.column(0).to_numpy(zero_copy_only=False))
            chunks.append(batch.column(0))
        return pa.chunked_array(chunks), hashes

    def check(self) -> None:
        """Check all lines: the same tiles for every head, each once; known names; probabilities.

        Raises:
            BadArtifact: names the rule that the file breaks.
        """
        import pyarrow as pa

        first, hashes = self.names()
        splits, classes = _numbered(SPLITS), _numbered(self.classes)
        tile: dict[str, np.ndarray] = {}
        for head in self.heads:
            found = {
                "group": self.codes(head, "group")[0],
                "split": self.codes(head, "split", splits)[0],
                "label": self.codes(head, "label", classes)[0],
                **{name: self.numbers(head, name) for name in PART_COLUMNS},
            }
            tile = tile or found
            for start, batch in self.blocks(head, ["tile_id"]):
                if not first.slice(start, len(batch)).equals(pa.chunked_array([batch.column(0)])):
                    raise self.refuse("the heads do not stand on the same rows")
            if any(not np.array_equal(tile[name], found[name]) for name in found):
                raise self.refuse("group, split or label of a tile differ between the heads")
            self.codes(head, "predicted", classes)
            for _ in self.probabilities(head):
                pass
        if _stands_twice(first, hashes, tile["seed"]):
            raise self.refuse("the heads do not stand on the same rows, each once")


def _numbered(names: Sequence[str]) -> dict[str, int]:
    return {name: code for code, name in enumerate(names)}


def hash_names(names: np.ndarray) -> np.ndarray:
    """Return (N,) uint64 of texts: the same on every machine, and as good as drawn at random."""
    return pd.util.hash_array(names.astype(object), categorize=False)


def _stands_twice(names: Any, hashes: np.ndarray, seed: np.ndarray) -> bool:
    """Tell whether a tile stands twice under one seed: hashes sort out nearly all rows, the names decide."""
    import pyarrow as pa

    for each in np.unique(seed):
        rows = np.flatnonzero(seed == each)
        order = rows[np.argsort(hashes[rows], kind="stable")]
        same = hashes[order][1:] == hashes[order][:-1]
        if same.any():
            doubtful = np.unique(np.concatenate([order[1:][same], order[:-1][same]]))
            texts = names.take(pa.array(doubtful)).to_pylist()
            if len(set(texts)) != len(texts):
                return True
    return False
