"""Put the shards of an extraction together, after a proof that every tile of the manifest is there exactly once.

Reads the files that `python -m pipeline.extract --shard i/K` wrote, in any order; writes one embeddings.h5 with the
rows of a single run, and its record, so that later stages find it current. All shards must be of one model, manifest
and engine. Nothing of the shards is changed.

    python -m pipeline.merge shards/*.h5 --manifest manifest.csv --out embeddings.h5      in a run's folder
"""

import dataclasses
from pathlib import Path

import tyro

from pipeline.cli.command import command_without_run
from pipeline.cli.options import check
from pipeline.errors import EXIT_OK, EXIT_SKIPPED, UsageError
from pipeline.names import RunFile
from pipeline.runtime.console import log
from pipeline.runtime.progress import progress
from pipeline.storage import atomic, environment, records
from pipeline.storage.lock import locked


@dataclasses.dataclass(frozen=True)
class MergeOptions:
    """Which shards, and where their rows go."""

    shards: tyro.conf.Positional[tuple[Path, ...]] = ()
    """The embeddings of all shards."""

    manifest: Path | None = None
    """manifest.csv that the shards were made from."""

    out: Path | None = None
    """Default: embeddings.h5 next to the manifest."""

    max_bad: float = 0.01
    """Largest share of tiles that could not be read (exit code 3); above it nothing is merged."""

    force: bool = False
    """Merge shards that are stale, or that were made by several engines (the record notes it)."""

    restart: bool = False
    """Make the file again although it is current, or made with other options."""

    def __post_init__(self) -> None:
        """Check ranges."""
        check(0 <= self.max_bad <= 1, f"--max-bad {self.max_bad}: a share between 0 and 1 is needed")


def run(options: MergeOptions) -> int:
    """Write the merged file and its record; return the exit code.

    Raises:
        UsageError: no shard, or no manifest.
    """
    from pipeline.storage.embeddings.merge import merge
    from pipeline.storage.embeddings.shard_checks import read_shard_file
    from pipeline.tiles.manifest import read_manifest

    check(options.shards, "no shard given: name the files, such as reports/mine/shards/*.h5")
    if options.manifest is None:
        raise UsageError("--manifest: the manifest.csv that the shards were made from is needed")
    manifest = read_manifest(options.manifest)
    out = options.out or manifest.path.parent / RunFile.EMBEDDINGS
    environment.git_state()
    with locked(out.parent):
        atomic.remove_temporaries_of(out)
        shard_files = [read_shard_file(path) for path in options.shards]
        with progress(2 * len(manifest.table), unit="row", label="merge") as bar:
            written = merge(
                out,
                shard_files,
                manifest.table,
                manifest=manifest.path,
                max_bad=options.max_bad,
                restart=options.restart,
                force=options.force,
                advance=bar.update,
            )
    skipped = records.read_record(out)["details"]["skipped"]
    if written:
        log.info(f"merge: {len(manifest.table)} rows of {len(shard_files)} shards in {out}")
        for name, problem in skipped.items():
            log.warning(f"merge: skipped {name}: {problem}")
    else:
        log.info(f"merge: current, {out}")
    return EXIT_SKIPPED if skipped else EXIT_OK


main = command_without_run("pipeline.merge", __doc__, MergeOptions, run)
"""Entry point of `python -m pipeline.merge`."""


if __name__ == "__main__":
    raise SystemExit(main())
