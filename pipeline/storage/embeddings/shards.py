"""Divide the rows of a manifest into K shards, each embedded by a process of its own.

A shard has whole batches, so that the network sees the same batches as in a single run.
"""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from pipeline.errors import UsageError
from pipeline.storage.hdf5 import MOST_ROWS, Refuse

MOST_SHARDS = 100_000
"""Most shards; a larger number is taken for a mistake."""

TEXT = re.compile(r"([0-9]{1,6})/([0-9]{1,6})")


@dataclasses.dataclass(frozen=True, order=True)
class Shard:
    """The `index`-th of `count` shards, counted from 1."""

    index: int
    count: int

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def rows(self, n_rows: int, batch: int) -> range:
        """Return the rows of this shard in a manifest of `n_rows`: whole batches; shards differ by at most one batch.

        Raises:
            UsageError: there are fewer batches than shards.
        """
        n_batches = -(-n_rows // batch)
        if self.count > n_batches:
            raise UsageError(
                f"{self.count} shards: {n_rows} tiles are {n_batches} batches of {batch}, and a shard has whole "
                f"batches: use at most {n_batches} (or processes of torchrun), or a smaller --embed-batch for all"
            )
        first, last = (i * n_batches // self.count for i in (self.index - 1, self.index))
        return range(first * batch, min(last * batch, n_rows))

    @property
    def file_name(self) -> str:
        """Name of its embeddings in the folder `shards` of a run."""
        return f"embeddings-{self.index}-of-{self.count}.h5"


def parse_shard(text: str) -> Shard:
    """Return the shard that `--shard i/K` names.

    Raises:
        UsageError: not i/K with 1 <= i <= K.
    """
    found = TEXT.fullmatch(text)
    shard = Shard(int(found[1]), int(found[2])) if found else Shard(0, 0)
    if not 1 <= shard.index <= shard.count <= MOST_SHARDS:
        raise UsageError(f"--shard {text}: i/K is needed, counted from 1, such as 1/64 for the first of 64")
    return shard


@dataclasses.dataclass(frozen=True)
class ShardRows:
    """The rows of a manifest in the embeddings file of a shard."""

    shard: Shard
    first: int
    """First row, as a row of the manifest."""

    all_rows: int
    """Rows of the manifest."""

    def attribute(self) -> dict[str, int]:
        """Return the root attribute `shard`."""
        return {
            "index": self.shard.index,
            "count": self.shard.count,
            "first_row": self.first,
            "all_rows": self.all_rows,
        }


def read_shard_rows(attrs: Mapping[str, Any], refuse: Refuse) -> ShardRows | None:
    """Return the content of the root attribute `shard`; None without one.

    Raises:
        BadArtifact: its content is invalid.
    """
    if "shard" not in attrs:
        return None
    value = attrs["shard"]
    names = ("index", "count", "first_row", "all_rows")
    if not isinstance(value, dict) or not all(type(value.get(name)) is int for name in names):
        raise refuse("the attribute 'shard' is not an object of four numbers")
    index, count, first, all_rows = (value[name] for name in names)
    if not (1 <= index <= count <= MOST_SHARDS and 0 <= first < all_rows <= MOST_ROWS):
        raise refuse(f"the attribute 'shard' is {index}/{count} from row {first} of {all_rows}")
    return ShardRows(Shard(index, count), first, all_rows)
