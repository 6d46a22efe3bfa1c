"""Check every file of a run against its record, its inputs and its schema.

Reads the whole run folder and writes nothing. Prints each file that is damaged, missing, stale or unknown. The exit
code is 1 if a file is damaged, missing or stale.

    python -m pipeline.verify --run reports/mine
"""

import dataclasses
from pathlib import Path

from pipeline.cli.command import Command
from pipeline.cli.options import Common
from pipeline.errors import EXIT_FAILED, EXIT_OK, BadArtifact, PipelineError, StaleInput
from pipeline.runtime.console import log
from pipeline.storage import atomic, freshness, lock, records
from pipeline.storage.protocol import Protocol, check_part, read_protocol

UNFINISHED = ("checkpoint.pt", ".h5.partial", ".h5.partial.json")
"""Ends of the names of files of an interrupted stage, which have no record."""


@dataclasses.dataclass(frozen=True)
class VerifyOptions:
    """Options of verify."""

    light: bool = False
    """Accept that heavy files (model, embeddings, heads) and figures with pixels are missing, as in a clone."""


def check_one(path: Path, schema: str, stage: str, *, light: bool) -> list[str]:
    """Return the faults of an artefact, its companion files and its inputs."""
    if light and not path.is_file():
        records.read_record_alone(path)
        return []
    record = records.check_artifact(path, schema=schema)
    damaged = freshness.damaged_outputs(path, record)
    if light:
        damaged = [name for name in damaged if (path.parent / name).exists()]
    faults = [f"{path.parent / name}: missing or changed since {stage} wrote it" for name in damaged]
    try:
        freshness.check_inputs_unchanged(path, record)
    except StaleInput as error:
        faults.append(str(error))
    return faults


def check_content(run: Path) -> list[str]:
    """Return the faults in the content of the files: schemas, and rows that do not match across files."""
    from pipeline.network.model_file import load_model
    from pipeline.storage.embeddings.reader import read_embeddings
    from pipeline.tiles.manifest import read_manifest

    faults = []
    manifest = read_manifest(run / "manifest.csv") if (run / "manifest.csv").is_file() else None
    if (run / "model.safetensors").is_file():
        load_model(run / "model.safetensors")
    if (run / "embeddings.h5").is_file():
        embeddings = read_embeddings(run / "embeddings.h5")
        if manifest is not None and embeddings.tile_id != list(manifest.table["tile_id"]):
            faults.append(f"{run / 'embeddings.h5'}: its rows are not the tiles of manifest.csv, in this order")
    path = records.existing_table(run / "predictions.csv")
    if path.is_file():
        from pipeline.storage.predictions.csv_table import check_predictions

        found = check_predictions(path)
        if manifest is not None and not found <= set(manifest.table["tile_id"]):
            faults.append(f"{path}: has tiles that are not in manifest.csv")
    return faults


def unknown_files(run: Path, known: set[Path]) -> list[Path]:
    """Return files of the run folder that are in no record."""
    files = {path for path in run.rglob("*") if path.is_file()}
    left = {path for path in files - known if not path.name.endswith(UNFINISHED) and lock.NAME not in path.name}
    return sorted(path for path in left if not path.parent.name.endswith(".ranks"))


OPTIONAL = ("baselines.h5", "predictions-random.csv", "robustness.csv", "compare.csv")
"""Artefacts that a finished run may not have."""


def check_folder(folder: Path, *, light: bool) -> tuple[list[str], set[Path]]:
    """Return the faults of a run folder, or of one part of a plan, and the files in its records."""
    faults: list[str] = []
    known: set[Path] = set()
    for name, schema, stage in records.ARTIFACTS:
        path = records.existing_table(folder / name)
        if not path.is_file() and not records.record_path(path).is_file():
            continue
        known |= {path, records.record_path(path)}
        try:
            faults += check_one(path, schema, stage, light=light)
            known |= {path.parent / output for output in records.read_record_alone(path)["outputs"]}
        except BadArtifact as error:
            faults.append(str(error))
    if not faults:
        try:
            faults += check_content(folder)
        except PipelineError as error:
            faults.append(str(error))
    for check in (check_shards, check_slides, check_maps):
        found, files = check(folder, light=light)
        faults, known = faults + found, known | files
    return faults, known


def check_shards(folder: Path, *, light: bool) -> tuple[list[str], set[Path]]:
    """Return the faults of the shards in a run folder, and the files in their records."""
    from pipeline.storage.embeddings.merge import check_rows
    from pipeline.storage.embeddings.reader import SCHEMA, read_embeddings
    from pipeline.tiles.manifest import read_manifest

    faults: list[str] = []
    known: set[Path] = set()
    for record in sorted((folder / atomic.SHARDS).glob("*.h5.json")):
        path = record.with_suffix("")
        known |= {path, record}
        try:
            faults += check_one(path, SCHEMA, "extract", light=light)
            if not path.is_file():
                continue
            content = read_embeddings(path, shard=True)
            if content.shard is None:
                faults.append(f"{path}: is not a shard")
            elif (folder / "manifest.csv").is_file():
                first = content.shard.first
                table = read_manifest(folder / "manifest.csv").table
                check_rows(path, content, table.iloc[first : first + len(content.status)])
        except PipelineError as error:
            faults.append(str(error))
    return faults, known


def check_slides(folder: Path, *, light: bool) -> tuple[list[str], set[Path]]:
    """Return the faults of the grids and embeddings of slides in a run folder, and the files in their records."""
    from pipeline.slides import grid, outcomes
    from pipeline.storage.embeddings.reader import SCHEMA, read_embeddings

    faults: list[str] = []
    known: set[Path] = set()
    place = folder / atomic.SLIDES
    for record in sorted([*place.glob("*/*.json"), *place.glob("*.json")]):
        path = record.with_suffix("")
        if record.name == outcomes.FILE:
            known.add(record)
            continue
        schema, stage = (grid.SCHEMA, "tile") if path.name == "grid.csv" else (SCHEMA, "extract")
        if path.parent == place:
            schema = outcomes.TABLE_SCHEMA
        known |= {path, record}
        try:
            faults += check_one(path, schema, stage, light=light)
            known |= {path.parent / output for output in records.read_record_alone(path)["outputs"]}
            if path.is_file() and stage == "tile":
                grid.read_grid(path)
            elif path.is_file() and schema == SCHEMA:
                read_embeddings(path)
        except PipelineError as error:
            faults.append(str(error))
    return faults, known


def check_maps(folder: Path, *, light: bool) -> tuple[list[str], set[Path]]:
    """Return the faults of the maps of slides in a run folder, and the files in their records."""
    from pipeline.storage.predictions.unlabelled import SCHEMA, read_predictions

    faults: list[str] = []
    known: set[Path] = set()
    for place in sorted((folder / atomic.MAPS).glob("*/predictions.csv.json")):
        path = place.with_suffix("")
        known |= {path, place}
        try:
            faults += check_one(path, SCHEMA, "predict", light=light)
            known |= {path.parent / output for output in records.read_record_alone(path)["outputs"]}
            if path.is_file():
                read_predictions(path)
        except PipelineError as error:
            faults.append(str(error))
    return faults, known


def check_parts(protocol: Protocol, *, light: bool) -> tuple[list[str], set[Path]]:
    """Return the faults of a plan's parts, and the files in their records; with `light`, parts may be missing."""
    faults: list[str] = []
    known: set[Path] = set()
    for part in protocol.parts:
        folder = protocol.folder(part)
        if light and not folder.is_dir():
            continue
        try:
            check_part(protocol, part)
        except PipelineError as error:
            faults.append(str(error))
        found, files = check_folder(folder, light=light)
        if records.existing_table(folder / "predictions.csv") not in files:
            log.info(f"verify: {folder}: this part of the plan is not finished")
        faults += found
        known |= files
    return faults, known


def run(common: Common, options: VerifyOptions) -> int:
    """Check the run folder, and the parts of its plan, and print every fault; return the exit code."""
    folder = common.run
    faults, known = check_folder(folder, light=options.light)
    protocol = None
    try:
        protocol = read_protocol(folder)
    except PipelineError as error:
        faults.append(str(error))
    expected = [name for name, _, _ in records.ARTIFACTS if name not in OPTIONAL]
    if protocol is not None:
        found, files = check_parts(protocol, light=options.light)
        faults, known = faults + found, known | files
        expected = ["manifest.csv", "predictions.csv", "comparison.csv"]
    for name in expected:
        if records.existing_table(folder / name) not in known:
            log.info(f"verify: {name}: not made yet")
    if not known:
        faults.append(f"{folder}: no run: run `python -m pipeline.prepare` first")
    for fault in faults:
        log.warning(f"verify: {fault}")
    for path in unknown_files(folder, {known_path.resolve() for known_path in known} | known):
        log.info(f"verify: note: {path} is in no record")
    if faults:
        log.warning(f"verify: {len(faults)} fault(s) in {folder}")
        return EXIT_FAILED
    log.info(f"verify: {len(known)} files of {folder} match their records")
    return EXIT_OK


main = Command("pipeline.verify", __doc__, VerifyOptions, run, access="read")
"""Entry point of `python -m pipeline.verify`."""


if __name__ == "__main__":
    raise SystemExit(main())
