"""Read predictions.parquet, the format of tables with very many lines, head by head.

Its columns are those of predictions.csv. A row group has lines of one head only, so that a head is read without the
others. Names are never Python objects: tiles are Arrow's text, groups, splits and classes are codes.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from pipeline.errors import BadArtifact
from pipeline.names import SPLITS
from pipeline.storage.predictions.columns import (
    BLOCK_ROWS,
    CODED,
    COLUMNS,
    PART_COLUMNS,
    SUM_TOLERANCE,
    TILE_COLUMNS,
    hash_names,
)
from pipeline.storage.predictions.parquet_writer import require_pyarrow

Refuse = Callable[[str], BadArtifact]


class Block(NamedTuple):
    """Lines of one head."""

    start: int
    """Number of the first line, among the lines of the head."""

    batch: Any
    """pyarrow.RecordBatch of the requested columns."""


class ParquetTable:
    """Read a predictions.parquet; only the places of the lines of each head are in memory.

    Raises:
        BadArtifact: not readable, or not what the schema states; names the rule.
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
            raise refuse("the heads have different rows")

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
            raise self.refuse("its row groups have fewer or more lines than stated")

    def probabilities(self, head: str) -> np.ndarray:
        """Return (N, K) float32 probabilities of a head.

        Raises:
            BadArtifact: a row has no probabilities.
        """
        found = np.empty((self.n_rows, len(self.p_names)), np.float32)
        for start, batch in self.blocks(head, self.p_names):
            block = found[start : start + len(batch)]
            for k, name in enumerate(self.p_names):
                block[:, k] = batch.column(name).to_numpy()
            sums = block.sum(axis=1, dtype=np.float64)
            if not np.isfinite(block).all() or (block < 0).any() or (abs(sums - 1) > SUM_TOLERANCE).any():
                raise self.refuse("a row's probabilities are no numbers from 0 up that sum to 1")
        return found

    def predicted(self, head: str) -> np.ndarray:
        """Return (N,) int16 codes of the classes that a head predicts.

        Raises:
            BadArtifact: a class is unknown.
        """
        return self.codes(head, "predicted", _numbered(self.classes))[0]

    def codes(self, head: str, name: str, known: Mapping[str, int] | None = None) -> tuple[np.ndarray, list[str]]:
        """Return (N,) codes of a column of `CODED`, int16 for known names, else int32, and the names.

        Args:
            head: name of the head.
            name: group, split, label or predicted.
            known: name -> code; None: codes are numbered in the order of the names.

        Raises:
            BadArtifact: a name is unknown.
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
                raise self.refuse("a code has no text")
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

    def tiles(self) -> pd.DataFrame:
        """Return a row per tile (and seed): tile_id as Arrow's text, group, split, label as categories, seed, fold.

        Raises:
            BadArtifact: the heads have different rows, a tile is doubled, or a name is unknown.
        """
        import pyarrow as pa

        first, *others = self.heads
        with self._readable():
            names = pa.chunked_array([batch.column(0) for _, batch in self.blocks(first, ["tile_id"])])
        tiles = self._columns(first)
        tiles.insert(0, "tile_id", pd.Series(pd.arrays.ArrowExtensionArray(names)))
        for head in others:
            for start, batch in self.blocks(head, ["tile_id"]):
                if not names.slice(start, len(batch)).equals(pa.chunked_array([batch.column(0)])):
                    raise self.refuse("the heads have different rows")
            if not self._columns(head).equals(tiles[list(TILE_COLUMNS[1:])]):
                raise self.refuse("group, split or label of a tile differ between the heads")
        if _is_doubled(tiles):
            raise self.refuse("a tile has two rows of one head and seed")
        return tiles

    def _columns(self, head: str) -> pd.DataFrame:
        """Return group, split, label, seed and fold of a head's lines."""
        known = {"group": None, "split": _numbered(SPLITS), "label": _numbered(self.classes)}
        coded = {name: self.codes(head, name, codes) for name, codes in known.items()}
        categories = {name: pd.Categorical.from_codes(codes, pd.Index(names)) for name, (codes, names) in coded.items()}
        return pd.DataFrame(categories | {name: self.numbers(head, name) for name in PART_COLUMNS})

    def check(self) -> pd.DataFrame:
        """Check all lines and return the tiles.

        Raises:
            BadArtifact: names the rule that the file breaks.
        """
        tiles = self.tiles()
        for head in self.heads:
            self.predicted(head)
            self.probabilities(head)
        return tiles


class HeadProbabilities(Mapping[str, np.ndarray]):
    """Head -> (N, K) float32 probabilities, read on demand; the last head is cached."""

    def __init__(self, table: ParquetTable) -> None:
        self.table = table
        self.cached: tuple[str, np.ndarray] | None = None

    def __getitem__(self, head: str) -> np.ndarray:
        """Return the probabilities of a head."""
        if head not in self.table.row_groups:
            raise KeyError(head)
        if self.cached is None or self.cached[0] != head:
            self.cached = None  # freed first: two would take twice the memory
            self.cached = head, self.table.probabilities(head)
        return self.cached[1]

    def __iter__(self) -> Iterator[str]:
        """Yield the heads in the order of the file."""
        return iter(self.table.heads)

    def __len__(self) -> int:
        """Return the number of heads."""
        return len(self.table.heads)


def _numbered(names: Sequence[str]) -> dict[str, int]:
    return {name: code for code, name in enumerate(names)}


def _is_doubled(tiles: pd.DataFrame) -> bool:
    """Return whether a tile has two rows of one seed; only names of equal hash are compared."""
    hashes, seed = hash_names(tiles["tile_id"]), tiles["seed"].to_numpy()
    for each in np.unique(seed):
        rows = np.flatnonzero(seed == each)
        order = rows[np.argsort(hashes[rows], kind="stable")]
        same = hashes[order][1:] == hashes[order][:-1]
        doubtful = np.unique(np.concatenate([order[1:][same], order[:-1][same]]))
        if tiles["tile_id"].iloc[doubtful].duplicated().any():
            return True
    return False
