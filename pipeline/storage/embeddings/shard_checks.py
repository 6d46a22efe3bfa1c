"""Check that all shards of an extraction are there once, and made with the same settings."""

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
"""Most shards that a message names."""


@dataclasses.dataclass(frozen=True)
class ShardFile:
    """The file of a shard."""

    path: Path
    record: Mapping[str, Any]
    header: Header
    contained: ShardRows

    @property
    def shard(self) -> Shard:
        """Its number, and the number of all shards."""
        return self.contained.shard

    @property
    def details(self) -> Mapping[str, Any]:
        """The details of its record."""
        return dict(self.record["details"])

    @property
    def engine(self) -> str:
        """Engine and precision, e.g. `torch bf16`."""
        return f"{self.details.get('engine')} {self.details.get('precision')}"

    @property
    def libraries(self) -> str:
        """Versions of the libraries that computed its rows."""
        versions = self.header.attrs.get("versions", {})
        return ", ".join(f"{name} {versions[name]}" for name in ("torch", "openvino") if name in versions)


def read_shard_file(path: Path) -> ShardFile:
    """Return a shard from its file and record; no row is read.

    Raises:
        BadInput: missing, or not a shard.
        BadArtifact: its record or its header is damaged.
    """
    if not path.is_file():
        raise BadInput(f"{path}: no such file: give the embeddings of all shards")
    record = records.read_record(path)
    header = read_header(path)
    if header.shard is None:
        raise BadInput(f"{path}: is not a shard (`extract --shard i/K` makes shards): leave it out")
    batch = record["details"].get("batch")
    if not isinstance(batch, int) or batch < 1 or not isinstance(record["details"].get("skipped"), dict):
        raise BadArtifact(f"{path}: its record lacks the batch size or skipped tiles: extract it again with --restart")
    return ShardFile(path, record, header, header.shard)


def name_shards(files: Sequence[ShardFile]) -> str:
    """Return the names of the first `LISTED` shards, and the number of the others."""
    names = [str(file.shard) for file in files[:LISTED]]
    return ", ".join(names) + (f" and {len(files) - LISTED} more" if len(files) > LISTED else "")


def by_value(files: Sequence[ShardFile], value: Callable[[ShardFile], str]) -> dict[str, list[ShardFile]]:
    """Return the shards grouped by a value, the most frequent value first."""
    found: dict[str, list[ShardFile]] = collections.defaultdict(list)
    for file in sorted(files, key=lambda file: file.shard):
        found[value(file)].append(file)
    return dict(sorted(found.items(), key=lambda item: -len(item[1])))


MUST_AGREE: Mapping[str, Callable[[ShardFile], str]] = {
    "models": lambda file: str(file.header.attrs["model_sha256"])[:12],
    "lists of classes": lambda file: str(file.header.attrs["classes"]),
    "preparations of tiles": lambda file: str(sorted(file.header.attrs["preprocess"].items())),
    "layers": lambda file: str(file.header.attrs["layer"]),
    "numbers of features": lambda file: str(file.header.shape[1]),
    "types of features (--dtype)": lambda file: file.header.dtype,
    "numbers of views (--views)": lambda file: str(file.header.attrs["views"]),
    "batches (--embed-batch)": lambda file: str(file.details["batch"]),
    "normalisations by source": lambda file: str((file.details.get("normalised") or {}).get("sha256"))[:12],
}
"""Properties that must be the same in all shards -> function for the value as text."""

MAY_DIFFER: Mapping[str, Callable[[ShardFile], str]] = {
    "engines": lambda file: file.engine,
    "versions of libraries": lambda file: file.libraries,
    "calibrations of int8": lambda file: str(file.details.get("calibration"))[:12],
}
"""Properties that change rows by rounding only, and may differ with `force`."""


def ordered(files: Sequence[ShardFile], n_rows: int, *, manifest: Path, manifest_sha256: str) -> list[ShardFile]:
    """Return the shards of a manifest in the order of its rows.

    Args:
        files: shards in any order.
        n_rows: rows of the manifest.
        manifest: path of the manifest, for messages.
        manifest_sha256: its hash.

    Raises:
        BadInput: a shard is missing, doubled, or of another manifest, or the shards have different settings.
    """
    for file in files:
        if (theirs := file.header.attrs["manifest_sha256"]) != manifest_sha256:
            raise BadInput(
                f"{file.path}: a shard of another manifest ({theirs[:12]}) than {manifest} ({manifest_sha256[:12]}): "
                "leave it out, or give the manifest that the shards were made from"
            )
    counts = by_value(files, lambda file: str(file.shard.count))
    if len(counts) > 1:
        (often, (first, *_)), (seldom, (other, *_)) = list(counts.items())[:2]
        raise BadInput(
            f"{other.path}: one of {seldom} shards, {first.path} one of {often}: give the files of one extraction"
        )
    there: dict[int, ShardFile] = {}
    for file in files:
        if (earlier := there.setdefault(file.shard.index, file)) is not file:
            raise BadInput(f"shard {file.shard} is there twice, {earlier.path} and {file.path}: leave one out")
    for what, value in MUST_AGREE.items():
        if len(found := by_value(files, value)) > 1:
            raise BadInput(
                f"the shards were made with several {what}: {name_values(found)}: extract those again that are wrong, "
                "with --restart"
            )
    whole = range(1, files[0].shard.count + 1)
    if missing := [Shard(index, whole[-1]) for index in whole if index not in there]:
        names = ", ".join(map(str, missing[:LISTED])) + (" and more" if len(missing) > LISTED else "")
        raise BadInput(
            f"{len(missing)} of {len(whole)} shards missing: {names}: give all files, or extract these by "
            f"`python -m pipeline.extract --shard {missing[0]}`"
        )
    for file in files:
        rows = file.shard.rows(n_rows, file.details["batch"])
        if (file.contained.first, file.header.shape[0], file.contained.all_rows) != (rows.start, len(rows), n_rows):
            raise BadInput(
                f"{file.path}: {file.header.shape[0]} rows from row {file.contained.first} of "
                f"{file.contained.all_rows}, but shard {file.shard} of {n_rows} tiles has {len(rows)} from "
                f"{rows.start}: extract it again"
            )
    return [there[index] for index in whole]


def name_values(found: Mapping[str, Sequence[ShardFile]]) -> str:
    """Return each value with the names of its shards."""
    return "; ".join(f"{value} in {name_shards(files)}" for value, files in found.items())


def shard_differences(files: Sequence[ShardFile], *, force: bool) -> dict[str, dict[str, list[int]]]:
    """Return property -> value -> numbers of the shards with that value, for properties that differ.

    Raises:
        BadInput: a property differs, unless `force`.
    """
    differing = {}
    for what, value in MAY_DIFFER.items():
        found = by_value(files, value)
        if len(found) == 1:
            continue
        if not force:
            often = next(iter(found.values()))[0]
            raise BadInput(
                f"the shards were made with several {what}, whose features differ slightly: {name_values(found)}: "
                f"extract the smaller part again with --restart --engine {often.details.get('engine')} "
                f"--embed-precision {often.details.get('precision')}, or pass --force (the record notes it)"
            )
        differing[what] = {name: [file.shard.index for file in some] for name, some in found.items()}
    return differing
