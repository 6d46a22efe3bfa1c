"""Merge the shards of an extraction into one embeddings file, and check that each row is there once.

The headers of the shards are compared first, so that a missing shard is reported early. Then every byte is checked
against its record, and every row against the manifest while it is copied. Features are copied block by block.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.errors import BadArtifact, BadInput, UsageError
from pipeline.storage import freshness, records
from pipeline.storage.atomic import sha256_file
from pipeline.storage.embeddings.partial_rows import row_type
from pipeline.storage.embeddings.reader import OK, SCHEMA, Embeddings, feature_blocks, read_embeddings
from pipeline.storage.embeddings.shard_checks import ShardFile, by_value, ordered, shard_differences
from pipeline.storage.embeddings.writer import codes_of, write_embeddings

ATTRS = (
    *("classes", "preprocess", "encoder", "layer", "model_sha256", "manifest_sha256"),
    *("versions", "engine", "precision", "views"),
)
"""Root attributes that a merged file has from its shards."""


def check_bytes(files: Sequence[ShardFile], *, force: bool, advance: Callable[[int], object]) -> None:
    """Check every shard against its record, and its inputs against the current files.

    Raises:
        BadArtifact: a file does not match its record, or the record names other inputs than the file.
        StaleInput: the model or the manifest changed (unless `force`).
    """
    for file in files:
        records.check_artifact(file.path, schema=SCHEMA)
        made_from = {file.header.attrs["model_sha256"], file.header.attrs["manifest_sha256"]}
        if not made_from <= set(file.record["inputs"].values()):
            raise BadArtifact(f"{file.path}: its record names other inputs than the file: extract this shard again")
        advance(file.header.shape[0])
    if not force:
        freshness.check_inputs_unchanged(files[0].path, files[0].record)


class MergedRows:
    """Read the rows of all shards in the order of the manifest, and check them against it.

    Args:
        files: all shards, in order.
        table: table of the manifest.
        advance: called with the number of rows after each block.
    """

    def __init__(self, files: Sequence[ShardFile], table: pd.DataFrame, advance: Callable[[int], object]) -> None:
        self.files, self.table, self.advance = files, table, advance
        self.path = files[0].path
        self.row = row_type(files[0].header.shape[1], files[0].header.n_logits)

    def blocks(self) -> Iterator[np.ndarray]:
        """Yield all rows in order, not all at once (`writer.Rows`).

        Raises:
            BadArtifact: a file breaks the schema, or the hash of its features is wrong.
            BadInput: a row differs from the manifest.
        """
        for file in self.files:
            content = read_embeddings(file.path, with_features=False, shard=True)
            first = file.contained.first
            check_rows(file.path, content, self.table.iloc[first : first + len(content.status)])
            start = 0
            for features in feature_blocks(file.path, content.status):
                part = slice(start, start + len(features))
                rows = np.zeros(len(features), self.row)
                rows["features"], rows["logits"] = features, content.logits[part]
                rows["sha256"], rows["status"] = content.sha256[part], content.status[part]
                start += len(features)
                yield rows
                self.advance(len(features))


def check_rows(path: Path, content: Embeddings, table: pd.DataFrame) -> None:
    """Check the rows of a shard against the manifest: names, label, split, and the hash of the pixels.

    Raises:
        BadInput: a row differs; names the first.
    """
    if len(content.status) != len(table):
        raise BadInput(f"{path}: {len(content.status)} rows, but the manifest has {len(table)} there: extract it again")
    labels, splits = codes_of(table, content.classes)
    hashes = [digest.tobytes().hex() for digest in content.sha256]
    same = {
        "tile_id": np.array(content.tile_id, object) == table["tile_id"].to_numpy(object),
        "path": np.array(content.path, object) == table["path"].to_numpy(object),
        "group": np.array(content.group, object) == table["group"].to_numpy(object),
        "label": content.label == labels,
        "split": content.split == splits,
        "sha256": (content.status != OK) | (np.array(hashes, object) == table["sha256"].to_numpy(object)),
    }
    for what, agrees in same.items():
        if not agrees.all():
            row = int(np.argmin(agrees))
            raise BadInput(
                f"{path}: the {what} of its row {row} ({content.tile_id[row]}) is not that of the manifest "
                f"({table['tile_id'].iloc[row]}): extract this shard again with --restart"
            )


def common_options(files: Sequence[ShardFile]) -> dict[str, Any]:
    """Return the options of a single run that gives the same rows; for options that differ, the used values."""
    first = files[0]
    used = {"engine": "engine", "embed_precision": "precision", "embed_batch": "batch"}
    options = {name: value for name, value in first.record["options"].items() if name != "shard"}
    for name, value in options.items():
        if name in used and any(file.record["options"].get(name) != value for file in files):
            options[name] = first.details[used[name]]
    return options


def merged_details(files: Sequence[ShardFile], differing: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return the details of the merged file's record: those of a single run, and the shards.

    Args:
        files: all shards, in order.
        differing: result of `shard_differences`.
        folder: folder of the merged file.
    """
    often = next(iter(by_value(files, lambda file: file.engine).values()))[0]
    agreements = [file.details["agreement"] for file in files if file.details.get("agreement")]
    return {
        **often.details,
        "skipped": {name: problem for file in files for name, problem in file.details["skipped"].items()},
        "agreement": min(agreements, key=lambda agreement: agreement["cosine"], default=None),
        "shards": {records.relative_name(file.path, folder): file.record["sha256"] for file in files},
        **({"mixed": dict(differing)} if differing else {}),
    }


def merge(
    out: Path,
    files: Sequence[ShardFile],
    table: pd.DataFrame,
    *,
    manifest: Path,
    max_bad: float,
    restart: bool,
    force: bool,
    advance: Callable[[int], object],
) -> bool:
    """Write the merged file and a record as of a single run; return False if the file is current.

    Args:
        out: the embeddings file.
        files: the shards, in any order.
        table: table of the manifest.
        manifest: file of the manifest.
        max_bad: largest allowed share of unusable tiles.
        restart: write the file again although it is current, or was made with other options.
        force: merge shards that are stale, or differ by rounding.
        advance: called with numbers of rows; the sum is twice the rows of the manifest.

    Raises:
        BadInput: the shards do not match the manifest or one another, or too many tiles are unusable.
        BadArtifact: a file or record is damaged.
        StaleInput: model or manifest changed, or `out` was made with other options.
        UsageError: `out` would replace one of the shards or another artefact.
        DiskFull: no room; an earlier file at `out` is unchanged.
    """
    check_place(out, [manifest, *(file.path for file in files)])
    hashes = {manifest: sha256_file(manifest)}
    files = ordered(files, len(table), manifest=manifest, manifest_sha256=hashes[manifest])
    details = merged_details(files, shard_differences(files, force=force), out.parent)
    if len(skipped := details["skipped"]) > max_bad * len(table):
        raise BadInput(
            f"{manifest}: {len(skipped)} of {len(table)} tiles could not be used, above --max-bad {max_bad:g}: repair "
            f"them and extract their shards again with --restart; the first: {next(iter(skipped.values()))}"
        )
    first = files[0]
    model = model_path(first, manifest)
    hashes |= {model: str(first.header.attrs["model_sha256"])}
    artifact = records.Artifact(
        out, SCHEMA, "extract", common_options(files), [manifest, model], known=hashes, protects="options"
    )
    if not restart:
        if is_merged(out, details):
            return False
        freshness.check_replaceable(artifact)
    check_bytes(files, force=force, advance=advance)
    write_embeddings(
        out,
        MergedRows(files, table, advance),
        table,
        attrs={name: first.header.attrs[name] for name in ATTRS if name in first.header.attrs}
        | {name: details[name] for name in ("engine", "precision")},
        dtype=first.header.dtype,
    )
    records.write_record(
        artifact,
        details=details,
        device=", ".join(by_value(files, lambda file: str(file.record.get("device")))),
    )
    return True


def check_place(out: Path, read: Sequence[Path]) -> None:
    """Check that the merged file would not replace an input or another artefact.

    Raises:
        UsageError: `out` is one of the inputs, or another artefact.
    """
    if out.resolve() in {path.resolve() for path in read}:
        raise UsageError(f"--out {out}: is one of the inputs: give another path")
    if out.is_file() and records.record_path(out).is_file():
        schema = str(records.read_record(out)["schema"])
        if schema.partition("/")[0] != SCHEMA.partition("/")[0]:
            raise UsageError(f"--out: {out} exists ({schema}) and would be replaced: give another path")


def is_merged(out: Path, details: Mapping[str, Any]) -> bool:
    """Return whether the merged file is there, undamaged and made of the same shards."""
    try:
        record = records.check_artifact(out, schema=SCHEMA)
    except BadArtifact:
        return False
    return bool(record["details"].get("shards") == details["shards"])


def model_path(file: ShardFile, manifest: Path) -> Path:
    """Return the path of the model that made a shard: by its record, else next to the manifest.

    The model may be missing: the shards have its hash.
    """
    wanted = file.header.attrs["model_sha256"]
    named = [name for name, digest in file.record["inputs"].items() if digest == wanted]
    there = [place for place in (file.path.parent / name for name in named) if place.is_file()]
    own = manifest.parent / Path(named[0]).name
    return own if own.is_file() or not there else there[0]
