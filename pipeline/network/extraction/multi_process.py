"""Embed tiles in all processes of torchrun: each embeds a shard, the first one merges them.

The processes only wait for one another. The rule of `engines.select` gives all of them the same engine.
"""

import datetime
from pathlib import Path

from pipeline.errors import EXIT_OK, EXIT_SKIPPED
from pipeline.network.distributed import Ranks
from pipeline.network.extraction.run import ExtractionSettings
from pipeline.network.extraction.shared_rows import with_source
from pipeline.network.extraction.tiles import TileInputs, extract_shard, ranks_folder, remove_unfinished
from pipeline.runtime.console import log
from pipeline.runtime.progress import progress
from pipeline.storage import atomic, freshness, records
from pipeline.storage.embeddings.merge import merge
from pipeline.storage.embeddings.shard_checks import read_shard_file
from pipeline.storage.embeddings.shards import Shard

PATIENCE = datetime.timedelta(days=7)
"""Longest wait for the slowest process; after a stop, another process may have finished all its rows."""


def extract_jointly(inputs: TileInputs, settings: ExtractionSettings, out: Path) -> int:
    """Embed a shard in each process of `process_group` and merge them in the first; return the exit code.

    Only the first process ends with code 3, after the others: torchrun treats every code but 0 as a failure.
    """
    n_rows, ranks, folder = len(inputs.manifest.table), Ranks(), ranks_folder(out)
    atomic.check_no_link(folder)
    record = freshness.reusable_record(with_source(inputs.artifact(out, settings)), restart=settings.restart)
    shard = Shard(ranks.rank + 1, ranks.n)
    shard.rows(n_rows, settings.batch(inputs.model.preprocess.input_px))  # raises if a process would have no batch
    ranks.barrier()  # all have checked the file before the first one may write
    if record is not None:
        if ranks.is_first:
            remove_unfinished(out)  # left by a merge that was killed at its end
            return EXIT_SKIPPED if record["details"]["skipped"] else EXIT_OK
        return EXIT_OK
    if ranks.is_first:
        warn_of_other_shards(folder, ranks.n)
    extract_shard(inputs, settings, folder / shard.file_name, shard)
    ranks.barrier()
    if not ranks.is_first:
        return EXIT_OK
    return merge_shards(inputs, settings, out, [folder / Shard(i + 1, ranks.n).file_name for i in range(ranks.n)])


def warn_of_other_shards(folder: Path, n: int) -> None:
    """Log that rows of another number of processes are not continued."""
    others = [path for path in folder.glob("embeddings-*-of-*") if f"-of-{n}." not in path.name]
    if others:
        log.info(
            f"extract: {folder} has rows of another number of processes, which {n} processes cannot continue: all "
            "are computed again; to continue, stop and start as many as before"
        )


def merge_shards(inputs: TileInputs, settings: ExtractionSettings, out: Path, files: list[Path]) -> int:
    """Merge the shards and remove them; return the exit code."""
    n_rows = len(inputs.manifest.table)
    with progress(2 * n_rows, unit="row", label="merge") as bar:
        merge(
            out,
            [read_shard_file(file) for file in files],
            inputs.manifest.table,
            manifest=inputs.manifest.path,
            max_bad=settings.max_bad,
            restart=settings.restart,
            force=settings.force,
            advance=bar.update,
        )
    remove_unfinished(out)
    skipped = records.read_record(out)["details"]["skipped"]
    log.info(f"extract: {n_rows} rows of {len(files)} processes in {out}")
    for name, problem in skipped.items():
        log.warning(f"extract: skipped {name}: {problem}")
    return EXIT_SKIPPED if skipped else EXIT_OK
