"""Embed the tiles of a manifest, or one shard of them."""

import dataclasses
import shutil
from collections.abc import Sequence
from pathlib import Path

from pipeline.errors import EXIT_OK, EXIT_SKIPPED
from pipeline.network.extraction.run import ExtractionJob, ExtractionSettings, embed_to_hdf5, embedding_artifact
from pipeline.network.extraction.shared_rows import take_rows, with_source
from pipeline.network.model_file import Model
from pipeline.network.tile_files import TileFiles
from pipeline.storage import atomic, freshness, records
from pipeline.storage.embeddings.shards import Shard, ShardRows
from pipeline.storage.lock import locked_file
from pipeline.tiles.manifest import Manifest


@dataclasses.dataclass(frozen=True)
class TileInputs:
    """The tiles of a run and its network."""

    manifest: Manifest
    model: Model
    model_file: Path

    def artifact(self, out: Path, settings: ExtractionSettings, shard: Shard | None = None) -> records.Artifact:
        """Return how an embeddings file of all tiles, or of a shard of them, is made."""
        options = settings.recorded | ({} if shard is None else {"shard": str(shard)})
        return embedding_artifact(out, options, [self.manifest.path, self.model_file], {})

    def job(self, artifact: records.Artifact, settings: ExtractionSettings, shard: Shard | None) -> ExtractionJob:
        """Return what is embedded; a tile that was unreadable in the manifest gets the problem that it had then."""
        manifest, preprocess = self.manifest, self.model.preprocess
        n_tiles = len(manifest.table)
        own = range(n_tiles) if shard is None else shard.rows(n_tiles, settings.batch(preprocess.input_px))
        all_tiles = TileFiles.of_table(manifest.root, manifest.table, preprocess)
        all_tiles.fit_colours(workers=settings.workers)
        return ExtractionJob(
            artifact,
            self.model,
            model_file=self.model_file,
            tile_list=manifest.path,
            tiles=all_tiles.part(own),
            all_tiles=all_tiles,
            table=manifest.table.iloc[own.start : own.stop],
            training=manifest,
            details={name: manifest.details.get(name) for name in ("dataset", "protocol", "credit")},
            shard=None if shard is None else ShardRows(shard, own.start, n_tiles),
        )


def extract_tiles(
    inputs: TileInputs,
    settings: ExtractionSettings,
    out: Path,
    shard: Shard | None = None,
    *,
    others: Sequence[Path] = (),
) -> int:
    """Embed the tiles, or continue, or do nothing if the file is current; return the exit code.

    Args:
        inputs: tiles and network.
        settings: how tiles are embedded.
        out: the embeddings file.
        shard: the part of the tiles that is embedded; None: all.
        others: embeddings files of the other parts of a plan, whose rows are taken where they are the same.
    """
    artifact = inputs.artifact(out, settings, shard)
    record = freshness.reusable_record(with_source(artifact), restart=settings.restart)
    if record is not None:
        skipped = record["details"]["skipped"]
    else:
        job = inputs.job(artifact, settings, shard)
        taken = take_rows(job, () if settings.restart else others, settings)
        skipped = embed_to_hdf5(job, settings, {}) if taken is None else taken
        if shard is None:
            remove_unfinished(out)
    return EXIT_SKIPPED if skipped else EXIT_OK


def extract_shard(inputs: TileInputs, settings: ExtractionSettings, out: Path, shard: Shard) -> int:
    """Embed a shard while other processes work on the run: only the shard's own file is locked."""
    with locked_file(out):
        atomic.remove_temporaries_of(out)
        return extract_tiles(inputs, settings, out, shard)


def remove_unfinished(out: Path) -> None:
    """Remove what extractions in one process or in several left next to a file that is finished now."""
    for ending in (".partial", ".partial.json"):
        out.with_name(out.name + ending).unlink(missing_ok=True)
    shutil.rmtree(ranks_folder(out), ignore_errors=True)


def ranks_folder(out: Path) -> Path:
    """Return where the processes of torchrun keep their shards until they are merged."""
    return out.with_name(out.name + ".ranks")
