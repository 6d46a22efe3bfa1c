"""Check that the shards of an extraction are all there, each once, and made in one way."""

import collections
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.errors import BadArtifact, BadInput
from pipeline.storage import records
from pipeline.storage.embeddings.reader import Header, read_header
from pipeline.storage.embeddings.shards import Shard, ShardRows

LISTED = 8
"""Shards that a message names at most."""


@dataclasses.dataclass(frozen=True)
class Piece:
    """A file that holds a shard."""

    path: Path
    record: Mapping[str, Any]
    header: Header
    held: ShardRows

    @property
    def shard(self) -> Shard:
        """Which one of how many."""
        return self.held.shard

    @property
    def details(self) -> Mapping[str, Any]:
        """Facts of its record."""
        return dict(self.record["details"])

    @property
    def engine(self) -> str:
        """What its rows were computed by, as an option names it: `torch bf16`."""
        return f"{self.details.get('engine')} {self.details.get('precision')}"

    @property
    def libraries(self) -> str:
        """Versions of what computed its rows."""
        versions = self.header.attrs.get("versions", {})
        return ", ".join(f"{name} {versions[name]}" for name in ("torch", "openvino") if name in versions)


def read_piece(path: Path) -> Piece:
    """Return a shard by its file and record; no row is read.

    Raises:
        BadInput: not there, or no shard.
        BadArtifact: its record or its header is damaged.
    """
    if not path.is_file():
        raise BadInput(f"{path}: no such file: give the embeddings of all shards")
    record = records.read_record(path)
    header = read_header(path)
    if header.shard is None:
        raise BadInput(f"{path}: is whole, no shard (`extract --shard i/K` makes shards): leave it out")
    batch = record["details"].get("batch")
    if not isinstance(batch, int) or batch < 1 or not isinstance(record["details"].get("skipped"), dict):
        raise BadArtifact(f"{path}: its record does not say how it was made: extract that shard again with --restart")
    return Piece(path, record, header, header.shard)


def listed(pieces: Sequence[Piece]) -> str:
    """Return the names of shards, not too many."""
    names = [str(piece.shard) for piece in pieces[:LISTED]]
    return ", ".join(names) + (f" and {len(pieces) - LISTED} more" if len(pieces) > LISTED else "")


def by_value(pieces: Sequence[Piece], value: Callable[[Piece], str]) -> dict[str, list[Piece]]:
    """Return the pieces by a value, the most frequent first."""
    found: dict[str, list[Piece]] = collections.defaultdict(list)
    for piece in sorted(pieces, key=lambda piece: piece.shard):
        found[value(piece)].append(piece)
    return dict(sorted(found.items(), key=lambda item: -len(item[1])))


SAME: Mapping[str, Callable[[Piece], str]] = {
    "models": lambda piece: str(piece.header.attrs["model_sha256"])[:12],
    "lists of classes": lambda piece: str(piece.header.attrs["classes"]),
    "preparations of tiles": lambda piece: str(sorted(piece.header.attrs["preprocess"].items())),
    "layers": lambda piece: str(piece.header.attrs["layer"]),
    "numbers of features": lambda piece: str(piece.header.shape[1]),
    "types of features (--dtype)": lambda piece: piece.header.dtype,
    "numbers of views (--views)": lambda piece: str(piece.header.attrs["views"]),
    "batches (--embed-batch)": lambda piece: str(piece.details["batch"]),
}
"""What must be the same in all shards -> its value as text."""

ALIKE: Mapping[str, Callable[[Piece], str]] = {
    "engines": lambda piece: piece.engine,
    "versions of libraries": lambda piece: piece.libraries,
    "calibrations of int8": lambda piece: str(piece.details.get("calibration"))[:12],
}
"""What makes rows differ by rounding, and may differ by `force`."""


def ordered(pieces: Sequence[Piece], n_rows: int, *, manifest: Path, manifest_sha256: str) -> list[Piece]:
    """Return the shards of a manifest in the order of its rows, all of them, each once.

    Args:
        pieces: in any order.
        n_rows: of the manifest.
        manifest: for messages.
        manifest_sha256: of its bytes.

    Raises:
        BadInput: one is missing, doubled, or of another manifest, or they were made in several ways.
    """
    for piece in pieces:
        if (theirs := piece.header.attrs["manifest_sha256"]) != manifest_sha256:
            raise BadInput(
                f"{piece.path}: a shard of another manifest ({theirs[:12]}) than {manifest} ({manifest_sha256[:12]}): "
                "leave it out, or give the manifest that the shards were made from"
            )
    counts = by_value(pieces, lambda piece: str(piece.shard.count))
    if len(counts) > 1:
        (often, (first, *_)), (seldom, (other, *_)) = list(counts.items())[:2]
        raise BadInput(
            f"{other.path}: one of {seldom} shards, {first.path} one of {often}: give the files of one division"
        )
    there: dict[int, Piece] = {}
    for piece in pieces:
        if (earlier := there.setdefault(piece.shard.index, piece)) is not piece:
            raise BadInput(f"shard {piece.shard} is there twice, {earlier.path} and {piece.path}: leave one out")
    for what, value in SAME.items():
        if len(found := by_value(pieces, value)) > 1:
            raise BadInput(
                f"the shards were made with several {what}: {described(found)}: extract those again that are wrong, "
                "with --restart"
            )
    whole = range(1, pieces[0].shard.count + 1)
    if missing := [Shard(index, whole[-1]) for index in whole if index not in there]:
        names = ", ".join(map(str, missing[:LISTED])) + (" and more" if len(missing) > LISTED else "")
        raise BadInput(
            f"{len(missing)} of {len(whole)} shards missing: {names}: give all files, or extract these by "
            f"`python -m pipeline.extract --shard {missing[0]}`"
        )
    for piece in pieces:
        rows = piece.shard.rows(n_rows, piece.details["batch"])
        if (piece.held.first, piece.header.shape[0], piece.held.all_rows) != (rows.start, len(rows), n_rows):
            raise BadInput(
                f"{piece.path}: {piece.header.shape[0]} rows from row {piece.held.first} of {piece.held.all_rows}, but "
                f"shard {piece.shard} of {n_rows} tiles has {len(rows)} from {rows.start}: extract it again"
            )
    return [there[index] for index in whole]


def described(found: Mapping[str, Sequence[Piece]]) -> str:
    """Return which shards have which value."""
    return "; ".join(f"{value} in {listed(pieces)}" for value, pieces in found.items())


def mixed(pieces: Sequence[Piece], *, force: bool) -> dict[str, dict[str, list[int]]]:
    """Return what differs between the shards, with the numbers of the shards that have each value; {} if nothing.

    Raises:
        BadInput: something is, unless `force`.
    """
    differing = {}
    for what, value in ALIKE.items():
        found = by_value(pieces, value)
        if len(found) == 1:
            continue
        if not force:
            often = next(iter(found.values()))[0]
            raise BadInput(
                f"the shards were made with several {what}, whose features differ slightly: {described(found)}: "
                f"extract the fewer again with --restart --engine {often.details.get('engine')} --embed-precision "
                f"{often.details.get('precision')}, or pass --force to merge them as they are (the record says so)"
            )
        differing[what] = {name: [piece.shard.index for piece in some] for name, some in found.items()}
    return differing
