"""Check every file of a run against its record, its inputs and its schema.

Reads the whole run folder and writes nothing. Prints each file that is damaged, missing, stale or unknown. The exit
code is 1 if a file is damaged, missing or stale.

    python -m pipeline.verify --run reports/mine
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

from pipeline.cli.command import Command
from pipeline.cli.options import Common
from pipeline.errors import EXIT_FAILED, EXIT_OK, BadArtifact, PipelineError
from pipeline.names import DEFAULT_HEADS, FILES, RunFile
from pipeline.runtime.console import log
from pipeline.storage import atomic, freshness, lock, records
from pipeline.storage.protocol import Protocol, check_part, read_protocol

UNFINISHED = (RunFile.CHECKPOINT, "metrics.jsonl", ".h5.partial", ".h5.partial.json")
"""Ends of the names of files of an interrupted stage, which have no record."""


@dataclasses.dataclass(frozen=True)
class VerifyOptions:
    """Options of verify."""

    light: bool = False
    """Accept that heavy files (model, embeddings, heads) and figures with pixels are missing, as in a clone."""


OPTIONAL = {RunFile.BASELINES, RunFile.RANDOM_CONTROL, RunFile.ROBUSTNESS, RunFile.RUNS} | {
    file for head, file in FILES.items() if head not in DEFAULT_HEADS
}
"""Artefacts that a finished run may not have."""


@dataclasses.dataclass
class Findings:
    """Collect the faults of a run, and the files in its records."""

    light: bool
    faults: list[str] = dataclasses.field(default_factory=list)
    known: set[Path] = dataclasses.field(default_factory=set)

    def check(self, path: Path, schema: str, read: Callable[[Path], object] | None = None) -> None:
        """Check an artefact against its record, its companions, its inputs, and by `read` against its schema."""
        self.known |= {path, records.record_path(path)}
        with self.collected():
            if self.light and not path.is_file():
                self.known |= {path.parent / name for name in records.read_record_alone(path)["outputs"]}
                return
            record = records.check_artifact(path, schema=schema)
            self.known |= {path.parent / name for name in record["outputs"]}
            for name in freshness.damaged_outputs(path, record):
                if not self.light or (path.parent / name).exists():
                    self.faults.append(f"{path.parent / name}: missing or changed since {record['stage']} wrote it")
            with self.collected():
                freshness.check_inputs_unchanged(path, record)
            if read is not None:
                read(path)

    @contextlib.contextmanager
    def collected(self) -> Iterator[None]:
        """Add the error of the block to the faults."""
        try:
            yield
        except PipelineError as error:
            self.faults.append(str(error))


def check_folder(folder: Path, findings: Findings) -> None:
    """Check the files of a run folder, or of one part of a plan."""
    n_before = len(findings.faults)
    for name, schema, _ in records.ARTIFACTS:
        path = records.existing_table(folder / name)
        if path.is_file() or records.record_path(path).is_file():
            findings.check(path, schema)
    for name, schema, _ in records.ON_REQUEST:
        if records.record_path(folder / name).is_file():  # a README.md without a record is the user's
            findings.check(folder / name, schema)
    if len(findings.faults) == n_before:
        with findings.collected():
            check_content(folder, findings)
    check_slides_and_shards(folder, findings)


def check_content(run: Path, findings: Findings) -> None:
    """Check the content of the files: their schemas, and that rows match across files."""
    from pipeline.network.model_file import load_model
    from pipeline.storage.embeddings.reader import read_embeddings
    from pipeline.storage.predictions.csv_table import check_predictions
    from pipeline.tiles.manifest import read_manifest

    manifest = read_manifest(run / RunFile.MANIFEST) if (run / RunFile.MANIFEST).is_file() else None
    if (run / RunFile.MODEL).is_file():
        load_model(run / RunFile.MODEL)
    if (run / RunFile.EMBEDDINGS).is_file():
        embeddings = read_embeddings(run / RunFile.EMBEDDINGS)
        if manifest is not None and embeddings.tile_id != list(manifest.table["tile_id"]):
            findings.faults.append(
                f"{run / RunFile.EMBEDDINGS}: its rows are not the tiles of manifest.csv, in this order"
            )
    path = records.existing_table(run / RunFile.PREDICTIONS)
    if path.is_file():
        found = check_predictions(path)
        if manifest is not None and not found <= set(manifest.table["tile_id"]):
            findings.faults.append(f"{path}: has tiles that are not in manifest.csv")


def check_slides_and_shards(folder: Path, findings: Findings) -> None:
    """Check shards, the grids and embeddings of slides, and the maps of slides in a run folder."""
    from pipeline.slides import grid, outcomes
    from pipeline.storage.embeddings import reader
    from pipeline.storage.predictions import unlabelled

    slides = folder / atomic.SLIDES
    findings.known |= set(slides.glob(f"*/{outcomes.FILE}"))
    kinds: list[tuple[str, str, Callable[[Path], object] | None]] = [
        (f"{atomic.SHARDS}/*.h5", reader.SCHEMA, check_shard),
        (f"{atomic.SLIDES}/*.csv", outcomes.TABLE_SCHEMA, None),
        (f"{atomic.SLIDES}/*/grid.csv", grid.SCHEMA, grid.read_grid),
        (f"{atomic.SLIDES}/*/*.h5", reader.SCHEMA, reader.read_embeddings),
        (f"{atomic.MAPS}/*/{RunFile.PREDICTIONS}", unlabelled.SCHEMA, unlabelled.read_predictions),
    ]
    for pattern, schema, read in kinds:
        for record in sorted(folder.glob(f"{pattern}.json")):
            findings.check(record.with_suffix(""), schema, read)


def check_shard(path: Path) -> None:
    """Check the rows of a shard in a run folder against the manifest."""
    from pipeline.storage.embeddings.merge import check_rows
    from pipeline.storage.embeddings.reader import read_embeddings
    from pipeline.tiles.manifest import read_manifest

    content, manifest = read_embeddings(path, shard=True), path.parent.parent / RunFile.MANIFEST
    if content.shard is None:
        raise BadArtifact(f"{path}: is not a shard")
    if manifest.is_file():
        first = content.shard.first
        check_rows(path, content, read_manifest(manifest).table.iloc[first : first + len(content.status)])


def check_parts(protocol: Protocol, findings: Findings) -> None:
    """Check the parts of a plan; with `light`, parts may be missing."""
    for part in protocol.parts:
        folder = protocol.folder(part)
        if findings.light and not folder.is_dir():
            continue
        with findings.collected():
            check_part(protocol, part)
        check_folder(folder, findings)
        if records.existing_table(folder / RunFile.PREDICTIONS) not in findings.known:
            log.info(f"verify: {folder}: this part of the plan is not finished")


def unknown_files(run: Path, known: set[Path]) -> list[Path]:
    """Return files of the run folder that are in no record."""
    files = {path for path in run.rglob("*") if path.is_file()} - known - {path.resolve() for path in known}
    left = {path for path in files if not path.name.endswith(UNFINISHED) and lock.NAME not in path.name}
    return sorted(path for path in left if not path.parent.name.endswith((".ranks", "tensorboard")))


def run(common: Common, options: VerifyOptions) -> int:
    """Check the run folder, and the parts of its plan, and print every fault; return the exit code."""
    folder, findings = common.run, Findings(options.light)
    check_folder(folder, findings)
    expected = [name for name, _, _ in records.ARTIFACTS if name not in OPTIONAL]
    with findings.collected():
        protocol = read_protocol(folder)
        if protocol is not None:
            check_parts(protocol, findings)
            expected = [RunFile.MANIFEST, RunFile.PREDICTIONS, RunFile.COMPARISON]
    for name in expected:
        if records.existing_table(folder / name) not in findings.known:
            log.info(f"verify: {name}: not made yet")
    if not findings.known:
        findings.faults.append(f"{folder}: no run: run `python -m pipeline.prepare` first")
    for fault in findings.faults:
        log.info(f"verify: {fault}")
    for path in unknown_files(folder, findings.known):
        log.info(f"verify: note: {path} is in no record")
    if findings.faults:
        log.info(f"verify: {len(findings.faults)} fault(s) in {folder}")
        return EXIT_FAILED
    log.info(f"verify: {len(findings.known)} files of {folder} match their records")
    return EXIT_OK


main = Command("pipeline.verify", __doc__, VerifyOptions, run, access="read")
"""Entry point of `python -m pipeline.verify`."""


if __name__ == "__main__":
    raise SystemExit(main())
