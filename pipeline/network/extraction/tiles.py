"""The embeddings of a manifest's tiles, or of one shard of them: kept row by row until the file is built."""

import dataclasses
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.cli.options import Common
from pipeline.errors import EXIT_OK, EXIT_SKIPPED
from pipeline.network.batches import TileFiles
from pipeline.network.engines import default_batch
from pipeline.network.engines.resume import SETTLED, settle_engine, settled_beside
from pipeline.network.extraction.resumable_rows import attributes, fill
from pipeline.network.model_file import Model
from pipeline.runtime.console import log
from pipeline.runtime.device import n_workers, use_device
from pipeline.storage import atomic, freshness, records
from pipeline.storage.embeddings.partial_rows import PartialRows, row_type
from pipeline.storage.embeddings.reader import SCHEMA
from pipeline.storage.embeddings.shards import Shard, ShardRows, parse_shard
from pipeline.storage.embeddings.writer import write_embeddings
from pipeline.storage.lock import locked_file
from pipeline.tiles.manifest import Manifest


@dataclasses.dataclass(frozen=True)
class TileExtraction:
    """What is embedded, and how."""

    common: Common
    manifest: Manifest
    model: Model
    inputs: Sequence[Path]
    """The files of both."""

    chosen: Mapping[str, Any]
    """Options that decide the rows."""

    @property
    def shard(self) -> Shard | None:
        """The part of the tiles that is embedded; None: all."""
        return parse_shard(self.chosen["shard"]) if "shard" in self.chosen else None

    def artifact(self, out: Path) -> records.Artifact:
        """Return how an embeddings file of these tiles is made."""
        return records.Artifact(out, SCHEMA, "extract", self.chosen, self.inputs, protects="options")

    def of_shard(self, shard: Shard) -> "TileExtraction":
        """Return the same for a part of the tiles."""
        return dataclasses.replace(self, chosen={**self.chosen, "shard": str(shard)})


def nothing() -> None:
    """Do nothing."""


def code_if_current(work: TileExtraction, out: Path) -> int | None:
    """Return the exit code if the file is there and current, None if it is to be made.

    Raises:
        StaleInput: it was made with other options.
    """
    record = freshness.reusable_record(work.artifact(out), restart=work.common.restart)
    if record is None:
        return None
    return EXIT_SKIPPED if record["details"]["skipped"] else EXIT_OK


def extract_tiles(work: TileExtraction, out: Path, *, settled: Callable[[], None] = nothing) -> int:
    """Embed the tiles, or continue, or do nothing if the file is current; return the exit code.

    Args:
        work: what is embedded, and how.
        out: the embeddings file.
        settled: called once, as soon as others can see which engine it is (`settled_beside`).
    """
    if (code := code_if_current(work, out)) is None:
        return embed(work, out, settled=settled)
    settled()
    return code


def extract_shard(work: TileExtraction, out: Path, *, settled: Callable[[], None] = nothing) -> int:
    """As `extract_tiles`, beside others that work on the run: this shard's file is held."""
    with locked_file(out):
        atomic.remove_temporaries_of(out)
        return extract_tiles(work, out, settled=settled)


def remove_unfinished(out: Path) -> None:
    """Remove what extractions in one process or in several left beside a file that is finished now."""
    for ending in (".partial", ".partial.json"):
        out.with_name(out.name + ending).unlink(missing_ok=True)
    shutil.rmtree(ranks_folder(out), ignore_errors=True)


def ranks_folder(out: Path) -> Path:
    """Return where the processes of torchrun keep their shards until they are merged."""
    return out.with_name(out.name + ".ranks")


def embed(work: TileExtraction, out: Path, *, settled: Callable[[], None]) -> int:
    """Compute the rows that are missing, build the HDF5 file and its record."""
    common, manifest, model, chosen = work.common, work.manifest, work.model, work.chosen

    def files(table: pd.DataFrame) -> TileFiles:
        seen = model.preprocess
        return TileFiles(manifest.root, list(table["path"]), list(table["sha256"]), seen.size, stain=seen.stain)

    shard, n_tiles = work.shard, len(manifest.table)
    device = use_device(common.device, common.threads, deterministic=common.deterministic)
    batch = chosen["embed_batch"] or default_batch(device)
    own = range(n_tiles) if shard is None else shard.rows(n_tiles, batch)
    table = manifest.table.iloc[own.start : own.stop]
    tiles = files(table)
    hashes = {path.name: atomic.sha256_file(path) for path in work.inputs}
    scratch = PartialRows(
        out,
        row=row_type(model.network.fc.in_features, len(model.classes)),
        identity={"inputs": hashes, "options": chosen, "device": device.type, "batch": batch},
        batch=batch,
    )
    asked: tuple[str, str] = chosen["engine"], chosen["embed_precision"]
    if shard is not None and "auto" in asked:
        asked = settled_beside(scratch, out, shard) or asked
    engine = settle_engine(
        scratch,
        model,
        manifest,
        files(manifest.table),  # every shard tries engines on the same tiles as a single run
        asked=asked,
        device=device,
        restart=common.restart,
        force=common.force,
        n_tiles=len(table),
    )
    settled()
    there = scratch.path.stat().st_size if scratch.path.is_file() else 0
    atomic.require_space(out.parent, len(table) * scratch.row.itemsize * 2 - there)
    skipped = fill(scratch, engine, tiles, common, workers=n_workers(common.workers), of=n_tiles)
    skipped = {row: table["problem"].iloc[row] or problem for row, problem in skipped.items()}
    attrs = attributes(
        model, engine, model_sha256=hashes[work.inputs[1].name], manifest_sha256=hashes[work.inputs[0].name]
    )
    if shard is not None:
        attrs |= {"shard": ShardRows(shard, own.start, n_tiles).attribute()}
    write_embeddings(out, scratch, table, attrs=attrs, dtype=chosen["dtype"])
    records.write_record(
        work.artifact(out),
        details={
            "skipped": {table["tile_id"].iloc[row]: problem for row, problem in skipped.items()},
            **{name: scratch.identity[name] for name in ("batch", *SETTLED)},
            "per_pass": engine.per_pass,
            "dataset": manifest.details["dataset"],
            "protocol": manifest.details["protocol"],
            "credit": manifest.details.get("credit"),
        },
        device=str(device),
    )
    scratch.remove()
    if shard is None:
        remove_unfinished(out)
    log.info(f"extract: {len(table)} rows of {model.network.fc.in_features} features in {out}")
    for row, problem in skipped.items():
        log.info(f"extract: skipped {table['tile_id'].iloc[row]}: {problem}")
    return EXIT_SKIPPED if skipped else EXIT_OK
