"""Import embeddings that another program wrote, with a table of labels: fit_heads, report, compare and export follow.

SOURCE is an HDF5 file of CLAM, TRIDENT, STAMP or raw2features, or a folder of such files, one for each slide; an .h5ad
of AnnData; a .parquet or .csv with tile_id and f0, f1 ...; or a .npy, whose rows are in the order of the labels.

The labels' CSV has the column label, and tile_id or slide, x, y (as in the file's coords; a slide is called as its
file). Columns group and split are used if they are there. Rows without a label serve for nothing.

What cannot be proved: that a row shows the tile of its name (no pixel is seen), which encoder made it, and whether
that encoder was trained on the test tiles.

    python -m pipeline.import_embeddings features/ --labels tiles.csv --run reports/imported
"""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from pipeline.cli.command import Command
from pipeline.cli.options import Common, check
from pipeline.errors import EXIT_OK, EXIT_SKIPPED, BadInput, UsageError
from pipeline.names import SPLITS, RunFile
from pipeline.runtime.console import log
from pipeline.storage import atomic, freshness, records
from pipeline.storage.protocol import read_protocol

if TYPE_CHECKING:
    from pipeline.storage.embeddings.imported import Labelled

FRACTIONS = (0.70, 0.15, 0.15)
"""Shares of train, val and test where the labels hold no splits, as prepare takes them."""


@dataclasses.dataclass(frozen=True)
class ImportOptions:
    """Embeddings, labels, and how tiles are split."""

    source: tyro.conf.Positional[Path]
    """File, or folder of .h5 files."""

    labels: Path | None = None
    """CSV with label, and tile_id or slide, x, y; columns group and split if known."""

    key: str = ""
    """Name of the features in the file, such as obsm/X_uni; default: X, features or feats."""

    split_by: Literal["group", "tile"] = "group"
    """Where the labels hold no splits: whole groups, or single tiles at random, whose scores are optimistic."""


def run(common: Common, options: ImportOptions) -> int:
    """Write embeddings.h5 of the run; return the exit code."""
    from pipeline.storage.embeddings.foreign import HDF5, read_foreign
    from pipeline.storage.embeddings.imported import join_labels, write_imported
    from pipeline.storage.embeddings.reader import SCHEMA

    check(options.labels is not None, "--labels: a CSV file with the labels is needed")
    if options.labels is None or read_protocol(common.run) is not None:
        raise UsageError(f"{common.run} is a plan: give another --run")
    for name in (RunFile.MANIFEST, RunFile.MODEL):
        if (common.run / name).exists():
            raise UsageError(f"{common.run} has {name}, which belongs to tiles of its own: give another --run")
    source = options.source
    files = [source]
    if source.is_dir():
        files = sorted(path for path in source.iterdir() if path.suffix.lower() in HDF5 and path.is_file())
    if not files or not files[0].is_file():
        raise BadInput(f"{source}: no such file, and no folder of .h5 files")
    chosen = {"key": options.key, "split_by": options.split_by}
    out = common.run / RunFile.EMBEDDINGS
    artifact = records.Artifact(
        out, SCHEMA, "import_embeddings", chosen, [options.labels, *files], common.seed, protects="everything"
    )
    record = freshness.reusable_record(artifact, restart=common.restart)
    if record is not None:
        return EXIT_SKIPPED if record["details"]["skipped"] else EXIT_OK
    labelled = join_labels(read_foreign(files, key=options.key), source, options.labels)
    if labelled.notes:
        log.warning(f"import_embeddings: {options.labels} was read with: {'; '.join(labelled.notes)}")
    if len(labelled.extra) > common.max_bad * len(labelled.table):
        raise BadInput(
            f"{options.labels}: {len(labelled.extra)} tiles have no embedding in {source}, above --max-bad "
            f"{common.max_bad:g}; first {labelled.extra[0]}"
        )
    protocol = split(labelled, options, seed=common.seed)
    write_imported(out, labelled, labels_sha256=atomic.sha256_file(options.labels))
    records.write_record(artifact, details=details_of(labelled, source, protocol))
    report_rows(labelled, out)
    return EXIT_SKIPPED if labelled.extra else EXIT_OK


def split(labelled: "Labelled", options: ImportOptions, *, seed: int) -> str:
    """Fill in the splits where the labels hold none; return the protocol's name.

    Raises:
        BadInput: no labels, a split without rows, a group in two splits or not known, or a split cannot be made.
    """
    from pipeline.tiles.splits.holdout import grouped_split, random_split

    table = labelled.table
    used = table["label"] != ""
    rows = table[used]
    if rows.empty:
        raise BadInput(f"{options.labels}: no tile of {options.source} has a label")
    if labelled.has_splits:
        if missing := [name for name in SPLITS if name not in set(rows["split"])]:
            raise BadInput(
                f"{options.labels}: no labelled row is in {', '.join(missing)}: put some into each of "
                f"{', '.join(SPLITS)}, or leave the column split out"
            )
        if (unknown := int((rows["group"] == "").sum())) and options.split_by == "group":
            log.warning(f"import_embeddings: the group of {unknown} rows is not known: splits may share patients")
        in_splits = rows[rows["group"] != ""].groupby("group")["split"].nunique()
        if len(shared := in_splits[in_splits > 1]) and options.split_by == "group":
            raise BadInput(
                f"{options.labels}: {len(shared)} groups are in two splits, first {shared.index[0]}: keep each group "
                "in one split, or pass --split-by tile"
            )
        return "random" if len(shared) else "given"
    labels, groups = list(rows["label"]), list(rows["group"])
    if options.split_by == "tile":
        table.loc[used, "split"] = random_split(labels, fractions=FRACTIONS, seed=seed)
        return "random"
    if n := groups.count(""):
        raise BadInput(
            f"{options.labels}: {n} of {len(groups)} labelled rows have no group (slide, patient): fill in a column "
            "group, or pass --split-by tile"
        )
    table.loc[used, "split"] = grouped_split(labels, groups, fractions=FRACTIONS, seed=seed)
    return "grouped"


def details_of(labelled: "Labelled", source: Path, protocol: str) -> dict[str, object]:
    """Return the details of the record."""
    from pipeline.storage.embeddings.imported import copies_across_splits, label_features

    encoder = {"library": "", "name": labelled.foreign.encoder or "unknown (imported)", "pixels": "unseen"}
    return {
        "skipped": dict.fromkeys(labelled.extra, "no embedding"),
        "protocol": protocol,
        "dataset": source.name,
        "credit": None,
        "encoder": encoder,
        "unlabelled": labelled.n_unlabelled,
        "copies_across_splits": len(copies_across_splits(labelled)),
        "label_features": label_features(labelled),
    }


def report_rows(labelled: "Labelled", out: Path) -> None:
    """Log what was imported, and what a reader has to know of it."""
    from pipeline.storage.embeddings.imported import copies_across_splits, label_features

    features, table = labelled.foreign.features, labelled.table
    counts = ", ".join(f"{int((table['split'] == name).sum())} {name}" for name in SPLITS)
    log.info(
        f"import_embeddings: {len(features)} rows of {features.shape[1]} {features.dtype} features in {out}: {counts}"
    )
    if labelled.n_unlabelled:
        log.warning(f"import_embeddings: {labelled.n_unlabelled} rows have no label or no split and serve for nothing")
    if labelled.extra:
        log.warning(f"import_embeddings: {len(labelled.extra)} labels have no embedding, first {labelled.extra[0]}")
    if copies := copies_across_splits(labelled):
        log.warning(
            f"import_embeddings: {len(copies)} rows have the features of a tile in another split, first {copies[0][1]} "
            f"and {copies[0][0]}: copies make scores optimistic"
        )
    if found := label_features(labelled):
        log.warning(
            f"import_embeddings: {len(found)} features have one value in each class, first f{found[0]}: they hold the "
            "label, and every score is worthless: leave them out"
        )


main = Command("pipeline.import_embeddings", __doc__, ImportOptions, run, access="begin")
"""Entry point of `python -m pipeline.import_embeddings`."""


if __name__ == "__main__":
    raise SystemExit(main())
