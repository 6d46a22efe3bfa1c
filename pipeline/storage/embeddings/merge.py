"""Merge the shards of an extraction into one embeddings file, after a proof that each row is there once.

The headers of the shards are compared first, so that a missing or foreign shard costs no time. Then every byte is
checked against its record, and every row against the manifest while it is copied. Memory does not grow with the rows
of features.
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
from pipeline.storage.embeddings.shard_checks import Piece, by_value, mixed, ordered
from pipeline.storage.embeddings.writer import codes_of, write_embeddings

ATTRS = ("classes", "preprocess", "model_sha256", "manifest_sha256", "versions", "engine", "precision", "views")
"""Root attributes that a merged file has from its shards."""


def check_bytes(pieces: Sequence[Piece], *, force: bool, advance: Callable[[int], object]) -> None:
    """Check every shard against its record, and their inputs against the files of now.

    Raises:
        BadArtifact: a file does not fit its record, or the record names other inputs than the file.
        StaleInput: the model or the manifest changed since (unless `force`).
    """
    for piece in pieces:
        records.check_artifact(piece.path, schema=SCHEMA)
        made_from = {piece.header.attrs["model_sha256"], piece.header.attrs["manifest_sha256"]}
        if not made_from <= set(piece.record["inputs"].values()):
            raise BadArtifact(f"{piece.path}: its record names other inputs than the file: extract this shard again")
        advance(piece.header.shape[0])
    if not force:
        freshness.check_inputs_unchanged(pieces[0].path, pieces[0].record)


class MergedRows:
    """The rows of all shards in the order of the manifest, each checked against it as it is read.

    Args:
        pieces: all shards, in order.
        table: of the manifest.
        advance: called with the number of rows after each block.
    """

    def __init__(self, pieces: Sequence[Piece], table: pd.DataFrame, advance: Callable[[int], object]) -> None:
        self.pieces, self.table, self.advance = pieces, table, advance
        self.path = pieces[0].path
        self.row = row_type(pieces[0].header.shape[1], len(pieces[0].header.attrs["classes"]))

    def blocks(self) -> Iterator[np.ndarray]:
        """See `Rows`.

        Raises:
            BadArtifact: a file breaks the schema, or its features are not those that were written.
            BadInput: a row is not the manifest's.
        """
        for piece in self.pieces:
            content = read_embeddings(piece.path, with_features=False, shard=True)
            first = piece.held.first
            check_rows(piece.path, content, self.table.iloc[first : first + len(content.status)])
            start = 0
            for features in feature_blocks(piece.path, content.status):
                part = slice(start, start + len(features))
                rows = np.zeros(len(features), self.row)
                rows["features"], rows["logits"] = features, content.logits[part]
                rows["sha256"], rows["status"] = content.sha256[part], content.status[part]
                start += len(features)
                yield rows
                self.advance(len(features))


def check_rows(path: Path, content: Embeddings, table: pd.DataFrame) -> None:
    """Check the rows of a shard against the manifest: names, label, split, and the hash of the pixels.

    Args:
        path: of the shard, for messages.
        content: the shard.
        table: the rows of the manifest that it should hold.

    Raises:
        BadInput: names the first that differs.
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


def common_options(pieces: Sequence[Piece]) -> dict[str, Any]:
    """Return the options of the single run that gives these rows; where shards were asked differently, as settled."""
    first = pieces[0]
    settled = {"engine": "engine", "embed_precision": "precision", "embed_batch": "batch"}
    options = {name: value for name, value in first.record["options"].items() if name != "shard"}
    for name, value in options.items():
        if name in settled and any(piece.record["options"].get(name) != value for piece in pieces):
            options[name] = first.details[settled[name]]
    return options


def merged_details(pieces: Sequence[Piece], differing: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return the facts of the merged file's record: those of a single run, and which shards it was made of.

    Args:
        pieces: all shards, in order.
        differing: what `mixed` returned.
        folder: of the merged file.
    """
    often = next(iter(by_value(pieces, lambda piece: piece.engine).values()))[0]
    agreements = [piece.details["agreement"] for piece in pieces if piece.details.get("agreement")]
    passes = [piece.details["per_pass"] for piece in pieces if isinstance(piece.details.get("per_pass"), int)]
    return {
        **often.details,
        "skipped": {name: problem for piece in pieces for name, problem in piece.details["skipped"].items()},
        "agreement": min(agreements, key=lambda agreement: agreement["cosine"], default=None),
        "per_pass": min(passes, default=None),
        "shards": {records.relative_name(piece.path, folder): piece.record["sha256"] for piece in pieces},
        **({"mixed": dict(differing)} if differing else {}),
    }


def merge(
    out: Path,
    pieces: Sequence[Piece],
    table: pd.DataFrame,
    *,
    manifest: Path,
    max_bad: float,
    restart: bool,
    force: bool,
    advance: Callable[[int], object],
) -> bool:
    """Write the merged file and its record, which is that of a single run; return False if it was current.

    Args:
        out: the embeddings file.
        pieces: the shards, in any order.
        table: of the manifest.
        manifest: its file.
        max_bad: largest share of tiles that could not be used.
        restart: make it again although it is current, or was made with other options.
        force: merge what is stale, or differs by rounding.
        advance: called with numbers of rows, twice the manifest's in all.

    Raises:
        BadInput: the shards are not those of the manifest, all and once, made in one way; or too many bad tiles.
        BadArtifact: a file or record is damaged.
        StaleInput: model or manifest changed, or `out` is a file that was made with other options.
        UsageError: `out` would replace one of the shards or another artefact.
        DiskFull: no room; an earlier file under `out` is untouched.
    """
    refuse_place(out, [manifest, *(piece.path for piece in pieces)])
    hashes = {manifest: sha256_file(manifest)}
    pieces = ordered(pieces, len(table), manifest=manifest, manifest_sha256=hashes[manifest])
    details = merged_details(pieces, mixed(pieces, force=force), out.parent)
    if len(skipped := details["skipped"]) > max_bad * len(table):
        raise BadInput(
            f"{manifest}: {len(skipped)} of {len(table)} tiles could not be used, above --max-bad {max_bad:g}: put "
            f"them right and extract their shards again with --restart; the first: {next(iter(skipped.values()))}"
        )
    first = pieces[0]
    model = model_place(first, manifest)
    hashes |= {model: str(first.header.attrs["model_sha256"])}
    artifact = records.Artifact(
        out, SCHEMA, "extract", common_options(pieces), [manifest, model], known=hashes, protects="options"
    )
    if not restart:
        if is_merged(out, details):
            return False
        freshness.check_replaceable(artifact)
    check_bytes(pieces, force=force, advance=advance)
    write_embeddings(
        out,
        MergedRows(pieces, table, advance),
        table,
        attrs={name: first.header.attrs[name] for name in ATTRS if name in first.header.attrs}
        | {name: details[name] for name in ("engine", "precision")},
        dtype=first.header.dtype,
    )
    records.write_record(
        artifact,
        details=details,
        device=", ".join(by_value(pieces, lambda piece: str(piece.record.get("device")))),
    )
    return True


def refuse_place(out: Path, read: Sequence[Path]) -> None:
    """Refuse a place for the merged file that holds another file.

    Raises:
        UsageError: it is one of the files that are read, or another artefact.
    """
    if out.resolve() in {path.resolve() for path in read}:
        raise UsageError(f"--out {out}: is one of the files that are read: give another place")
    if out.is_file() and records.record_path(out).is_file():
        schema = str(records.read_record(out)["schema"])
        if schema.partition("/")[0] != SCHEMA.partition("/")[0]:
            raise UsageError(f"--out: {out} exists ({schema}) and would be replaced: give another place")


def is_merged(out: Path, details: Mapping[str, Any]) -> bool:
    """Return whether the merged file is there, undamaged and made of the same shards."""
    try:
        record = records.check_artifact(out, schema=SCHEMA)
    except BadArtifact:
        return False
    return bool(record["details"].get("shards") == details["shards"])


def model_place(piece: Piece, manifest: Path) -> Path:
    """Return the place of the model that made a shard: by its record, else next to the manifest.

    The model may be missing: the shards know its hash.
    """
    wanted = piece.header.attrs["model_sha256"]
    named = [name for name, digest in piece.record["inputs"].items() if digest == wanted]
    there = [place for place in (piece.path.parent / name for name in named) if place.is_file()]
    own = manifest.parent / Path(named[0]).name
    return own if own.is_file() or not there else there[0]
