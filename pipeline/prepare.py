r"""Find labelled tiles, check every one of them, and split them into train, val and test.

Reads a data set (the demo, Kather 2016, a folder of class folders, or a CSV file `path,label[,group][,split]`), or
cuts annotated slides into tiles (a CSV file `slide,annotations[,group][,split][,mpp]`). Writes manifest.csv,
audit.json, audit.md and figures/classes.png into the run folder.

    python -m pipeline.prepare --run reports/mine --data my_tiles --group-regex '(slide\d+)_'
    python -m pipeline.prepare --run reports/mine --data slides.csv --cut-px 224 --cut-mpp 0.5
"""

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pipeline.cli.annotation_options import AnnotationOptions
from pipeline.cli.command import Command
from pipeline.cli.options import Common, check, plain
from pipeline.errors import EXIT_OK, EXIT_SKIPPED, BadInput
from pipeline.names import SPLITS, RunFile
from pipeline.runtime.console import log
from pipeline.storage import atomic, freshness, records

if TYPE_CHECKING:
    from pipeline.tiles.datasets.sources import DataSource
    from pipeline.tiles.manifest import Manifest
    from pipeline.tiles.splits.cross_validation import SplitOptions

NAMES = ("demo", "kather2016")
"""Data sets that `--data` takes by name, not by path."""

DEMO_FOLDS = 2
"""Folds of the demo by default, each of five sources: few networks with many epochs are better than many with few."""

SAMPLES = 8
"""Tiles per class in figures/classes.png."""


@dataclasses.dataclass(frozen=True)
class PrepareOptions(AnnotationOptions):
    """Which tiles, and how they are split."""

    GROUPS: ClassVar[Mapping[str, str]] = {"prepare": "data", "annotated slides": "cut_px"}

    data: str = "demo"
    """demo, kather2016, a folder of class folders, or a CSV file with path,label[,group][,split]. For annotated
    slides a CSV file with slide,annotations[,group][,mpp][,split], or a folder of x.svs with x.geojson."""

    source: str | None = None
    """For --data kather2016: the published zip or its unpacked folder, instead of the download."""

    group_regex: str | None = None
    """Regular expression whose first parenthesis names the group (slide, patient) in a tile's relative path."""

    class_level: int | None = None
    """Which level of the folders names the class, 1 for the first. Default: the first; prepare stops where the folders
    look like splits, patients or parts of a data set."""

    allow_similar_names: bool = False
    """Take classes or groups that differ only in case, blanks or the coding of accents for different ones."""

    protocol: Literal["grouped", "random", "logo"] | None = None
    """grouped keeps each group in one split; logo leaves each group out once (or --folds of groups); random is the
    tutorial's. Default: grouped, which needs groups."""

    folds: int | None = None
    """Folds, so that every tile is tested once; each fold trains a network of its own. Default: 1, one split by
    --fractions; for logo as many as there are groups; for the demo 2, so that it decides on ten held-out sources."""

    seeds: int = 1
    """Repetitions, each with the next seed for folds, network and heads."""

    inner: int = 0
    """Inner networks of each fold, for --fit-on crossfit: every training tile is held out by one of them."""

    random_control: bool = False
    """Also run a random-split control, so that the report shows how optimistic a random split is."""

    fractions: tuple[float, float, float] = (0.70, 0.15, 0.15)
    """Shares of train, val and test; with folds the first two share what is not tested."""

    allow_leakage: bool = False
    """Continue although copies of a tile (the same pixels, or nearly so) can be on two sides of a split."""

    data_dir: Path = Path("data")
    """Where the demo is made and Kather 2016 is unpacked."""

    url: str | None = None
    """Another address of the Kather 2016 zip."""

    demo_tiles: int = 1000
    """Number of demo tiles."""

    demo_px: int = 150
    """Side of a demo tile in px."""

    def __post_init__(self) -> None:
        """Check ranges."""
        super().__post_init__()
        check(self.data, "--data is empty: demo, kather2016, a folder or a CSV file is needed")
        for name in ("source", "url"):
            check(
                getattr(self, name) is None or self.data == "kather2016",
                f"--{name} goes with --data kather2016; tiles of your own are given as --data FOLDER",
            )
        if self.group_regex:
            from pipeline.tiles.datasets.groups import group_pattern

            group_pattern(self.group_regex)
        check(self.class_level is None or self.class_level >= 1, f"--class-level {self.class_level}: at least 1")
        total = sum(self.fractions)
        check(
            min(self.fractions) > 0 and abs(total - 1) < 1e-6,
            f"--fractions {' '.join(map(str, self.fractions))}: three shares above 0 that sum to 1 are needed",
        )
        check(self.folds is None or self.folds >= 1, f"--folds {self.folds}: at least 1")
        check(self.folds != 1 or self.protocol != "logo", "--folds 1: leaving groups out takes at least 2 folds")
        check(self.seeds >= 1, f"--seeds {self.seeds}: at least 1")
        check(self.inner == 0 or self.inner >= 2, f"--inner {self.inner}: 0, or at least 2 inner networks")
        check(
            not self.random_control or self.protocol != "random",
            "--random-control: the random protocol has no random-split control",
        )
        check(self.demo_tiles >= 48, f"--demo-tiles {self.demo_tiles}: at least 48 are needed for three splits")
        check(16 <= self.demo_px <= 1024, f"--demo-px {self.demo_px}: 16 to 1024 px")

    @property
    def data_source(self) -> "DataSource":
        """Return which tiles the options name."""
        from pipeline.tiles.datasets.sources import DataSource

        return DataSource(**{field.name: getattr(self, field.name) for field in dataclasses.fields(DataSource)})

    def split_options(self, seed: int) -> "SplitOptions":
        """Return how the tiles are split, with the seeds from `seed` on."""
        from pipeline.tiles.splits.cross_validation import SplitOptions

        seeds = tuple(range(seed, seed + self.seeds))
        is_bare_demo = self.data == "demo" and self.protocol is None
        folds = DEMO_FOLDS if self.folds is None and is_bare_demo else self.folds
        return SplitOptions(self.protocol, folds, seeds, self.inner, self.random_control, self.fractions)


def earlier_manifest(common: Common) -> "Manifest | None":
    """Return the manifest of an earlier run of the command; None if there is none or it is to be replaced."""
    from pipeline.tiles.manifest import read_manifest

    path = common.run / RunFile.MANIFEST
    is_there = path.is_file() and records.record_path(path).is_file()
    return read_manifest(path) if is_there and not common.restart else None


def run(common: Common, options: PrepareOptions) -> int:
    """Prepare the run folder; return the exit code (3 if tiles were left out)."""
    from pipeline.annotations.listing import is_annotated, list_annotated
    from pipeline.annotations.tile_set import (
        ORIGIN,
        annotated_tiles,
        earlier_overlays,
        overlay_path,
        remove_squares,
        slide_hashes,
        slides_root,
    )
    from pipeline.figures.tiles import draw_classes
    from pipeline.runtime.console import list_names
    from pipeline.runtime.device import n_workers
    from pipeline.tiles.audit.checks import audit, audit_markdown
    from pipeline.tiles.audit.measure import survey_tiles
    from pipeline.tiles.datasets.sources import find_tiles
    from pipeline.tiles.earlier import check_same_annotations, check_same_table, check_same_tiles, same_words
    from pipeline.tiles.manifest import SCHEMA, write_manifest
    from pipeline.tiles.splits.cross_validation import make_plan
    from pipeline.tiles.splits.write import remove_other_plans, training_colours, write_parts

    data, path = Path(options.data), common.run / RunFile.MANIFEST
    is_name = options.data in NAMES
    if not is_name and data.is_dir() and common.run.resolve().is_relative_to(data.resolve()):
        raise BadInput(f"{common.run} is among the tiles in {data}, its figures would be read as tiles: choose --run")
    given = plain(options)
    if not is_name:  # my_tiles/ is my_tiles, but a folder called demo is not the demo
        normal = os.path.normpath(data)
        given["data"] = f"./{normal}" if normal in NAMES else normal
    annotated = None
    if not is_name and is_annotated(data):
        annotated = list_annotated(data, group_regex=options.group_regex or "")
    unused = [] if annotated is not None else options.changed_annotation_options()
    check(not unused, f"{', '.join(unused)}: only for annotated slides (--data with a column annotations)")
    listing = annotated.inputs if annotated is not None else [data] if data.is_file() and not is_name else []
    chosen = same_words(given, listing, common.run, names=NAMES)
    protects: Literal["file", "everything"] = "file" if annotated is None else "everything"
    artifact = records.Artifact(path, SCHEMA, "prepare", chosen, listing, common.seed, protects=protects)
    if not common.restart:
        freshness.check_replaceable(artifact)
    earlier, has_moved, has_lost = earlier_manifest(common), False, False
    if annotated is None:
        tiles = find_tiles(options.data_source, seed=common.seed)
        if earlier is not None:
            check_same_tiles(earlier, tiles)
            has_moved = not (earlier.root.is_dir() and earlier.root.samefile(tiles.root))
    else:
        hashes = slide_hashes(annotated)
    if annotated is not None and earlier is not None:
        check_same_annotations(earlier, listing, hashes)
        root = slides_root(annotated)
        has_moved = not options.write_tiles and not (earlier.root.is_dir() and earlier.root.samefile(root))
        has_lost = options.write_tiles and not all((earlier.root / name).is_file() for name in earlier.readable["path"])
    if earlier is not None and not has_moved and not has_lost and freshness.reusable_record(artifact) is not None:
        return EXIT_OK if len(earlier.readable) == len(earlier.table) else EXIT_SKIPPED
    if annotated is not None:
        tiles = annotated_tiles(
            annotated,
            options.cut,
            run=common.run,
            hashes=hashes,
            seed=common.seed,
            allow_similar_names=options.allow_similar_names,
            force=common.force,
        )
    store = common.run / "tiles" if options.write_tiles else None
    workers = max(1, n_workers(common.workers))
    table, measurements = survey_tiles(tiles, workers=workers, max_bad=common.max_bad, store=store)
    root = store or tiles.root
    if earlier is not None and has_moved:
        check_same_table(earlier, table, root)
    good = table["problem"] == ""
    plan = make_plan(table[good], options.split_options(common.seed), where=options.data)
    table.loc[good, "split"] = plan.parts[0].split
    sides = plan.sides(table)
    if not plan.is_single:
        table.loc[good, "split"] = "test"  # every tile is tested by the parts that were trained without it
    findings = audit(table, measurements, tiles, sides=sides, protocol=plan.protocol)
    for finding in findings:
        if finding.severity == "note":
            log.info(f"prepare: note: {finding.line}")
        else:
            log.warning(f"prepare: {finding.line}")
    if findings and findings[0].severity == "error" and not options.allow_leakage:
        raise BadInput(f"{findings[0].line}: remove all copies but one, or pass --allow-leakage")

    outputs = [common.run / RunFile.AUDIT, common.run / "audit.md", common.run / "figures" / "classes.png"]
    if annotated is not None:
        outputs += [overlay_path(common.run, slide) for slide in annotated.slides]
    n_bad = int((~good).sum())
    facts = {"findings": list(map(dataclasses.asdict, findings)), "n_tiles": len(table), "n_unreadable": n_bad}
    atomic.write_text(outputs[0], atomic.to_json(facts))
    page = audit_markdown(table, findings, measurements=measurements, name=tiles.name, protocol=plan.protocol)
    atomic.write_text(outputs[1], page)
    draw_classes(outputs[2], table, root=root, per_class=SAMPLES, seed=common.seed)
    origin = options.data if is_name else "files" if annotated is None else ORIGIN
    details = {"dataset": tiles.name, "origin": origin, "protocol": plan.protocol, **tiles.facts}
    remove_other_plans(common.run, plan)
    quality = measurements.quality
    if plan.is_single:
        details["source_colours"] = training_colours(table, quality)
    else:
        outputs.append(write_parts(common.run, table, plan, root=root, options=given, details=details, quality=quality))
    old_overlays = earlier_overlays(common.run) - set(outputs)
    write_manifest(
        path, table, root=root, options=given, details=details, outputs=outputs, seed=common.seed, inputs=listing
    )
    for file in old_overlays:
        file.unlink(missing_ok=True)
    remove_squares(common.run / "tiles", (root / name for name in table["path"]))
    if n_bad:
        log.warning(
            f"prepare: {n_bad} unreadable tile(s) left out, see audit.md: {list_names(list(table['path'][~good]))}"
        )
    counts = table["split"].value_counts()
    split = ", ".join(f"{counts.get(name, 0)} {name}" for name in SPLITS)
    if not plan.is_single:
        split = f"{len(plan.parts)} parts of {plan.n_folds} fold(s) and {options.seeds} seed(s)"
    classes = sorted(table["label"].unique())
    log.info(
        f"prepare: {len(table)} tiles ({split}; {plan.protocol} split) of {len(classes)} classes in {path}: "
        f"{list_names(classes)}"
    )
    return EXIT_SKIPPED if n_bad else EXIT_OK


main = Command("pipeline.prepare", __doc__, PrepareOptions, run, access="begin")
"""Entry point of `python -m pipeline.prepare`."""


if __name__ == "__main__":
    raise SystemExit(main())
