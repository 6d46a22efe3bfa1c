"""Shards are runs of whole batches that make up the manifest, each row in one of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import BadArtifact, UsageError
from pipeline.storage.embeddings.shards import Shard, ShardRows, parse_shard, read_shard_rows


@given(st.integers(1, 5000), st.integers(1, 300), st.data())
def test_every_row_is_in_one_shard_and_every_shard_begins_with_a_batch(
    n_rows: int, batch: int, data: st.DataObject
) -> None:
    n_batches = -(-n_rows // batch)
    count = data.draw(st.integers(1, n_batches))
    parts = [Shard(index, count).rows(n_rows, batch) for index in range(1, count + 1)]
    assert [row for part in parts for row in part] == list(range(n_rows))
    assert all(part.start % batch == 0 for part in parts)
    sizes = [-(-len(part) // batch) for part in parts]
    assert min(sizes) >= 1
    assert max(sizes) - min(sizes) <= 1
    with pytest.raises(UsageError, match=f"use at most {n_batches} "):
        Shard(1, n_batches + 1).rows(n_rows, batch)


def test_a_shard_is_counted_from_1() -> None:
    assert parse_shard("1/64") == Shard(1, 64)
    assert parse_shard("64/64") == Shard(64, 64)
    assert str(Shard(3, 64)) == "3/64"
    assert Shard(3, 64).file_name == "embeddings-3-of-64.h5"


@pytest.mark.parametrize("text", ["0/4", "5/4", "4", "1/0", "a/b", "-1/4", "1/4/2", "1 / 4", "1/1000000", "\u0661/4"])
def test_what_names_no_shard(text: str) -> None:
    with pytest.raises(UsageError, match="i/K is needed, counted from 1"):
        parse_shard(text)


def refuse(rule: str) -> BadArtifact:
    return BadArtifact(rule)


def test_the_attribute_is_read_back() -> None:
    held = ShardRows(Shard(2, 3), 10, 32)
    assert read_shard_rows({"shard": held.attribute()}, refuse) == held
    assert read_shard_rows({"views": 1}, refuse) is None


@pytest.mark.parametrize(
    "changed",
    [
        {"index": 0},
        {"index": 4},
        {"count": 10**9},
        {"first_row": -1},
        {"first_row": 32},
        {"index": "2"},
        {"index": True},
    ],
)
def test_an_attribute_that_cannot_be(changed: dict[str, object]) -> None:
    for value in (ShardRows(Shard(2, 3), 10, 32).attribute() | changed, [2, 3, 10, 32], None, {"index": 2}):
        with pytest.raises(BadArtifact, match="the attribute 'shard'"):
            read_shard_rows({"shard": value}, refuse)
