"""Export embeddings as files of other programs, or describe the run: CLAM, TRIDENT, anndata, CSV, a card, a crate.

Reads embeddings.h5 of the run, or the embeddings of a slide. Tiles that could not be read are left out. For slides,
clam and trident write into the folder --out: h5_files/<slide>.h5 and pt_files/<slide>.pt, or <slide>.h5. For anndata
and csv --out is a file. From the records of a run that has a report, model-card writes README.md, and ro-crate writes
ro-crate-metadata.json into the run folder.

    python -m pipeline.export --run reports/mine --to anndata --out mine.h5ad
    python -m pipeline.export --run reports/mine --embeddings slide.h5 --to clam --out clam_features
    python -m pipeline.export --run reports/mine --to model-card
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pipeline.cli.command import Command
from pipeline.cli.options import Common, check
from pipeline.errors import EXIT_OK, EXIT_SKIPPED, BadInput, UsageError
from pipeline.names import RunFile
from pipeline.runtime.console import log
from pipeline.slides.place import check_same_content, content_facts, slide_of
from pipeline.storage import atomic, freshness, records
from pipeline.storage.protocol import read_protocol

if TYPE_CHECKING:
    from pipeline.storage.embeddings.reader import Embeddings

FOLDERS = ("clam", "trident")
"""Formats with one file per slide in a folder."""

DESCRIPTIONS = ("model-card", "ro-crate")
"""Formats that describe a run."""


@dataclasses.dataclass(frozen=True)
class ExportOptions:
    """Input, format and place of an export."""

    to: Literal["clam", "trident", "anndata", "csv", "model-card", "ro-crate", ""] = ""
    """Format of the export."""

    embeddings: Path | None = None
    """Default: embeddings.h5 of the run."""

    out: Path | None = None
    """Folder (clam, trident) or file (anndata, csv, model-card) to write. Default for a model card: README.md of the
    run."""


def check_free(targets: Sequence[Path], *, restart: bool) -> None:
    """Check that the export replaces no file of another stage or program, such as the embeddings themselves.

    Args:
        targets: the files of the export; the record of the first lists the others.
        restart: replace files without a record.

    Raises:
        UsageError: it would.
    """
    place = targets[0]
    if not records.record_path(place).is_file():
        if (found := [file for file in targets if file.is_file()]) and not restart:
            raise UsageError(f"--out: {found[0]} exists, and has no record of an export: move it, or pass --restart")
        return
    schema = str(records.read_record_alone(place)["schema"])
    if not schema.startswith("export/"):
        raise UsageError(f"--out: {place} exists ({schema}) and would be replaced: give another place")


def exported(path: Path, content: "Embeddings", record: records.Record) -> tuple[Path, str]:
    """Return the slide, or the manifest of the tiles, and the hash of its content."""
    if content.slide is None:
        return path.with_name(RunFile.MANIFEST), str(content.attrs["manifest_sha256"])
    return slide_of(path, record, content.slide), content.slide.slide_sha256


def run(common: Common, options: ExportOptions) -> int:
    """Write the files, and the record of the first file; return the exit code."""
    check(options.to, "--to: clam, trident, anndata, csv, model-card or ro-crate is needed")
    if options.to in DESCRIPTIONS:
        check(options.embeddings is None, f"--embeddings: not for --to {options.to}, which describes a run")
        return describe(common, options)
    return export_rows(common, options)


def describe(common: Common, options: ExportOptions) -> int:
    """Write the model card or the crate of a run, and its record; return the exit code.

    Raises:
        UsageError: another file is in the place, or --out with a crate.
    """
    from pipeline.publication import ro_crate
    from pipeline.publication.model_card import model_card
    from pipeline.publication.run_facts import read_facts
    from pipeline.storage.embeddings.export import SCHEMA

    facts, known = read_facts(common.run, force=common.force), {}
    if options.to == "model-card":
        place, inputs = options.out or common.run / "README.md", facts.files
        text = model_card(facts)
    else:
        check(options.out is None, "--out: not for --to ro-crate: a crate is in the folder that it describes")
        artifacts = ro_crate.recorded_artifacts(common.run)
        place, inputs = common.run / ro_crate.FILE, [each.path for each in artifacts]
        known = {each.path: each.record["sha256"] for each in artifacts}
        text = atomic.to_json(ro_crate.ro_crate(facts, artifacts))
    check_free([place], restart=common.restart)
    atomic.write_text(place, text)
    records.write_record(records.Artifact(place, SCHEMA, "export", {"to": options.to}, inputs, known=known))
    log.info(f"export: {place}")
    return EXIT_OK


def export_rows(common: Common, options: ExportOptions) -> int:
    """Write the rows of an embeddings file, and the record of the first file; return the exit code."""
    from pipeline.storage.embeddings import reader as stored
    from pipeline.storage.embeddings.export import FORMATS, SCHEMA, target_files

    out = options.out
    if out is None:
        raise UsageError("--out: a folder (clam, trident) or a file (anndata, csv) is needed")
    if options.embeddings is None and read_protocol(common.run) is not None:
        raise UsageError(f"{common.run} is a plan, whose parts have embeddings of their own: give a part's --run")
    path = options.embeddings or common.run / RunFile.EMBEDDINGS
    if options.to in FOLDERS and out.is_file():
        raise UsageError(f"--out {out}: a file, but --to {options.to} writes into a folder")
    if options.to not in FOLDERS and out.is_dir():
        raise UsageError(f"--out {out}: a folder, but --to {options.to} writes a file")
    targets = target_files(options.to, path, out)
    check_free(targets, restart=common.restart)
    record = freshness.checked_record(path, schema=stored.SCHEMA, force=common.force)
    content = stored.read_embeddings(path, with_features=False)
    source, sha256 = exported(path, content, record)
    check_same_content(targets[0], source, sha256=sha256, restart=common.restart)
    used = int((content.status == stored.OK).sum())
    if not used:
        raise BadInput(f"{path}: none of its {len(content.status)} tiles could be read: there are no features")
    written = FORMATS[options.to](path, content, out)
    records.write_record(
        records.Artifact(written[0], SCHEMA, "export", {"to": options.to}, [path]),
        outputs=written[1:],
        details={
            **content_facts(source, sha256, targets[0].parent),
            "n_tiles": used,
            "n_left_out": len(content.status) - used,
        },
    )
    log.info(f"export: {used} tiles in {', '.join(map(str, written))}")
    if used < len(content.status):
        log.warning(f"export: {len(content.status) - used} tiles could not be read and are left out")
    return EXIT_OK if used == len(content.status) else EXIT_SKIPPED


main = Command("pipeline.export", __doc__, ExportOptions, run, access="read")
"""Entry point of `python -m pipeline.export`."""


if __name__ == "__main__":
    raise SystemExit(main())
