"""An extraction by all processes of torchrun: a shard in each, merged by the first.

They exchange nothing but the word that they are ready; the engine is what the first one wrote beside its rows.
"""

import datetime
from pathlib import Path

from pipeline.errors import EXIT_OK, EXIT_SKIPPED
from pipeline.network.distributed import Ranks
from pipeline.network.engines import default_batch
from pipeline.network.extraction.tiles import (
    TileExtraction,
    code_if_current,
    extract_shard,
    nothing,
    ranks_folder,
    remove_unfinished,
)
from pipeline.runtime.console import log
from pipeline.runtime.device import use_device
from pipeline.runtime.progress import progress
from pipeline.storage import atomic, records
from pipeline.storage.embeddings.merge import merge
from pipeline.storage.embeddings.shard_checks import read_piece
from pipeline.storage.embeddings.shards import Shard

PATIENCE = datetime.timedelta(days=7)
"""How long the processes wait for the slowest of them: after a stop one may have nothing left to do."""


def extract_jointly(work: TileExtraction, out: Path) -> int:
    """Embed a shard in each process of `process_group` and merge them in the first; return the exit code.

    Only the first ends with code 3, when the others have ended: torchrun takes any code but 0 for a failure.

    Args:
        work: what is embedded, and how.
        out: the embeddings file.
    """
    common, n_rows, ranks = work.common, len(work.manifest.table), Ranks()
    folder = ranks_folder(out)
    atomic.refuse_link(folder)
    code = code_if_current(work, out)
    device = use_device(common.device, common.threads, deterministic=common.deterministic)
    shard = Shard(ranks.rank + 1, ranks.n)
    shard.rows(n_rows, work.chosen["embed_batch"] or default_batch(device))
    ranks.barrier()  # all have looked, and found that they may begin
    if code is not None and ranks.is_first:
        remove_unfinished(out)  # of a merge that was killed behind its last line
    if code is None and ranks.is_first:
        tell_of_others(folder, ranks.n)
    if code is None:
        if not ranks.is_first:
            ranks.barrier()
        extract_shard(
            work.of_shard(shard), folder / shard.file_name, settled=ranks.barrier if ranks.is_first else nothing
        )
        ranks.barrier()
        if ranks.is_first:
            code = merge_parts(work, out, [folder / Shard(i + 1, ranks.n).file_name for i in range(ranks.n)])
    return code or EXIT_OK if ranks.is_first else EXIT_OK


def tell_of_others(folder: Path, n: int) -> None:
    """Say that rows of another number of processes are not gone on with."""
    others = [path for path in folder.glob("embeddings-*-of-*") if f"-of-{n}." not in path.name]
    if others:
        log.info(
            f"extract: {folder} holds rows that another number of processes began, which {n} cannot continue: all are "
            "computed anew; stop, and start as many as before to continue"
        )


def merge_parts(work: TileExtraction, out: Path, files: list[Path]) -> int:
    """Put the shards together and remove them; return the exit code."""
    common, n_rows = work.common, len(work.manifest.table)
    with progress(2 * n_rows, unit="row", label="merge") as bar:
        merge(
            out,
            [read_piece(file) for file in files],
            work.manifest.table,
            manifest=work.manifest.path,
            max_bad=common.max_bad,
            restart=common.restart,
            force=common.force,
            advance=bar.update,
        )
    remove_unfinished(out)
    skipped = records.read_record(out)["details"]["skipped"]
    log.info(f"extract: {n_rows} rows of {len(files)} processes in {out}")
    for name, problem in skipped.items():
        log.info(f"extract: skipped {name}: {problem}")
    return EXIT_SKIPPED if skipped else EXIT_OK
