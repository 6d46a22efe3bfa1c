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
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pipeline.cli.annotation_options import AnnotationOptions
from pipeline.cli.command import Command
from pipeline.cli.options import Common, check, plain
from pipeline.errors import EXIT_OK, EXIT_SKIPPED, BadInput
from pipeline.names import RunFile
from pipeline.runtime.console import log
from pipeline.storage import freshness, records

if TYPE_CHECKING:
    from pipeline.annotations.listing import Listing
    from pipeline.tiles.datasets.sources import DataSource
    from pipeline.tiles.manifest import Manifest
    from pipeline.tiles.prepared import Prepared
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


@dataclasses.dataclass(frozen=True)
class Job:
    """A call of the command: what it would write, and from what."""

    common: Common
    options: PrepareOptions
    given: Mapping[str, Any]
    """The options, with a plain path of the data."""

    artifact: records.Artifact
    annotated: "Listing | None"
    """The annotated slides; None where the data are tiles."""

    earlier: "Manifest | None"
    """The manifest that is in the run; None without one, or if it is to be replaced."""

    @property
    def origin(self) -> str:
        """Where the tiles come from, a word of the manifest's record."""
        if self.annotated is not None:
            return "annotations"
        return self.options.data if self.options.data in NAMES else "files"


def resolve_job(common: Common, options: PrepareOptions) -> Job:
    """Return the job of some options, after checking them against the files that are there.

    Raises:
        BadInput: the run is among its own tiles, or the annotated slides cannot be listed.
        UsageError: options of annotated slides with other data.
        StaleInput: a manifest that must not be replaced was made with other options or inputs.
    """
    from pipeline.annotations.listing import is_annotated, list_annotated
    from pipeline.tiles.earlier import same_words
    from pipeline.tiles.manifest import SCHEMA, read_manifest

    data, path = Path(options.data), common.run / RunFile.MANIFEST
    given, listing, inputs = plain(options), None, list[Path]()
    if options.data not in NAMES:
        if data.is_dir() and common.run.resolve().is_relative_to(data.resolve()):
            raise BadInput(
                f"{common.run} is among the tiles in {data}, its figures would be read as tiles: choose --run"
            )
        normal = os.path.normpath(data)  # my_tiles/ is my_tiles, but a folder called demo is not the demo
        given["data"] = f"./{normal}" if normal in NAMES else normal
        listing = list_annotated(data, group_regex=options.group_regex or "") if is_annotated(data) else None
        inputs = listing.inputs if listing is not None else [data] if data.is_file() else []
    unused = [] if listing is not None else options.changed_annotation_options()
    check(not unused, f"{', '.join(unused)}: only for annotated slides (--data with a column annotations)")
    protects: Literal["file", "everything"] = "file" if listing is None else "everything"
    chosen = same_words(given, inputs, common.run, names=NAMES)
    artifact = records.Artifact(path, SCHEMA, "prepare", chosen, inputs, common.seed, protects=protects)
    if not common.restart:
        freshness.check_replaceable(artifact)
    is_there = path.is_file() and records.record_path(path).is_file() and not common.restart
    return Job(common, options, given, artifact, listing, read_manifest(path) if is_there else None)


def find_and_check(job: Job) -> "Prepared | None":
    """Find the tiles, decode each, split them and audit the split; None if the manifest in the run is current.

    Raises:
        BadInput: tiles or annotations that cannot be used; copies on two sides of a split without --allow-leakage.
        StaleInput: the manifest in the run lists other tiles, slides or annotations.
    """
    from pipeline.annotations.tile_set import annotated_tiles, slide_hashes, slides_root
    from pipeline.runtime.device import n_workers
    from pipeline.tiles.audit.measure import survey_tiles
    from pipeline.tiles.datasets.sources import find_tiles
    from pipeline.tiles.earlier import check_same_annotations, check_same_table, check_same_tiles, is_in_place
    from pipeline.tiles.prepared import split_and_audit

    common, options, annotated, earlier = job.common, job.options, job.annotated, job.earlier
    store = common.run / "tiles" if options.write_tiles else None
    if annotated is None:
        tiles = find_tiles(options.data_source, seed=common.seed)
        root = tiles.root
        if earlier is not None:
            check_same_tiles(earlier, tiles)
    else:
        hashes, root = slide_hashes(annotated), slides_root(annotated)
        if earlier is not None:
            check_same_annotations(earlier, job.artifact.inputs, hashes)
    in_place = earlier is not None and is_in_place(earlier, None if store else root)
    if in_place and freshness.reusable_record(job.artifact) is not None:
        return None
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
    workers = max(1, n_workers(common.workers))
    table, measurements = survey_tiles(tiles, workers=workers, max_bad=common.max_bad, store=store)
    root = store or root
    if earlier is not None and not in_place and store is None:
        check_same_table(earlier, table, root)
    how = options.split_options(common.seed)
    prepared = split_and_audit(tiles, table, measurements, how, root=root, where=options.data)
    prepared.log_findings(allow_leakage=options.allow_leakage)
    return prepared


def write(job: Job, prepared: "Prepared") -> None:
    """Write the audit, the figures and the manifests, and remove what an earlier run left."""
    from pipeline.annotations.tile_set import earlier_overlays, overlay_path, remove_squares
    from pipeline.figures.tiles import draw_classes

    run, seed = job.common.run, job.common.seed
    outputs = [*prepared.write_audit(run), run / "figures" / "classes.png"]
    draw_classes(outputs[-1], prepared.table, root=prepared.root, per_class=SAMPLES, seed=seed)
    if job.annotated is not None:
        outputs += [overlay_path(run, slide) for slide in job.annotated.slides]
    old_overlays = earlier_overlays(run) - {*outputs}
    prepared.write_manifests(
        run, origin=job.origin, options=job.given, outputs=outputs, seed=seed, inputs=job.artifact.inputs
    )
    for file in old_overlays:
        file.unlink(missing_ok=True)
    remove_squares(run / "tiles", (prepared.root / name for name in prepared.table["path"]))


def run(common: Common, options: PrepareOptions) -> int:
    """Prepare the run folder; return the exit code (3 if tiles were left out)."""
    from pipeline.runtime.console import list_names

    job = resolve_job(common, options)
    prepared = find_and_check(job)
    if prepared is None:
        earlier = job.earlier
        return EXIT_OK if earlier is None or len(earlier.readable) == len(earlier.table) else EXIT_SKIPPED
    write(job, prepared)
    bad, classes = prepared.bad_paths, sorted(prepared.table["label"].unique())
    if bad:
        log.warning(f"prepare: {len(bad)} unreadable tile(s) left out, see audit.md: {list_names(bad)}")
    log.info(
        f"prepare: {len(prepared.table)} tiles ({prepared.split_text}; {prepared.plan.protocol} split) of "
        f"{len(classes)} classes in {job.artifact.path}: {list_names(classes)}"
    )
    return EXIT_SKIPPED if bad else EXIT_OK


main = Command("pipeline.prepare", __doc__, PrepareOptions, run, access="begin")
"""Entry point of `python -m pipeline.prepare`."""


if __name__ == "__main__":
    raise SystemExit(main())
