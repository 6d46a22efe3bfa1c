r"""Find labelled tiles, look at every one of them, and fix which serves for what.

Reads a data set (the demo, Kather 2016, a folder of class folders, or a CSV file `path,label[,group][,split]`);
writes manifest.csv, audit.json, audit.md and figures/classes.png into the run folder.

    python -m pipeline.prepare --run reports/mine --data my_tiles --group-regex '(slide\d+)_'
"""

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pipeline.cli.command import Command
from pipeline.cli.options import Common, check, plain
from pipeline.errors import EXIT_OK, EXIT_SKIPPED, BadInput, StaleInput
from pipeline.runtime.console import log
from pipeline.storage import atomic, freshness, records

if TYPE_CHECKING:
    import pandas as pd

    from pipeline.tiles.audit.measure import Measurements
    from pipeline.tiles.datasets.sources import DataSource, TileSet
    from pipeline.tiles.manifest import Manifest
    from pipeline.tiles.splits.cross_validation import Part

NAMES = ("demo", "kather2016")
"""What `--data` takes for a data set of its own, not for a path."""

SAMPLES = 8
"""Tiles per class in figures/classes.png."""


@dataclasses.dataclass(frozen=True)
class PrepareOptions:
    """Which tiles, and how they are split."""

    data: str = "demo"
    """demo, kather2016, a folder of class folders, or a CSV file with path,label[,group][,split]."""

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
    --fractions; for logo as many as there are groups."""

    seeds: int = 1
    """Repetitions, each with the next seed for folds, network and heads."""

    inner: int = 0
    """Inner networks of each fold, for --fit-on crossfit: every training tile is held out by one of them."""

    random_control: bool = False
    """Also run a random-split control, so that the report shows how optimistic a random split is."""

    fractions: tuple[float, float, float] = (0.70, 0.15, 0.15)
    """Shares of train, val and test; with folds the first two share what is not tested."""

    allow_leakage: bool = False
    """Go on although copies of a tile (the same pixels, or nearly so) can stand on two sides of a split."""

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


def given_split(tiles: "TileSet", good: "pd.DataFrame", options: PrepareOptions) -> str:
    """Check the split column of the data and return the protocol it stands for: given, or random.

    Raises:
        BadInput: a split is missing, cuts a group, or leaves train without a class; or folds are asked for too.
    """
    from pipeline.names import SPLITS

    if options.folds not in (None, 1) or options.protocol == "logo" or options.inner or options.random_control:
        raise BadInput(
            f"{options.data}: it has a split column, which excludes --folds, --protocol logo, --inner and "
            "--random-control: drop the column or those options"
        )
    if missing := set(SPLITS) - set(good["split"]):
        raise BadInput(f"{options.data}: its split column holds no '{min(missing)}' rows; all three are needed")
    spread = good[good["group"].ne("")].groupby("group")["split"].nunique()
    if (spread > 1).any() and options.protocol != "random":
        group = spread.index[spread > 1][0]
        raise BadInput(
            f"{options.data}: its split column puts group '{group}' into several splits: correct it, or pass "
            "--protocol random to accept that the results flatter"
        )
    if absent := set(good["label"]) - set(good.loc[good["split"] == "train", "label"]):
        raise BadInput(f"{options.data}: its split column gives train no tile of '{min(absent)}'")
    log.info(f"prepare: the split column of {options.data} is used; --protocol and --fractions do not apply")
    return "random" if (spread > 1).any() else "given"


def make_plan(
    tiles: "TileSet", table: "pd.DataFrame", options: PrepareOptions, seed: int
) -> "tuple[str, int, list[Part]]":
    """Return the protocol, the number of folds and the parts; a single split is a plan of one part.

    Raises:
        BadInput: the protocol asked for cannot be had with these labels and groups.
    """
    from pipeline.tiles.splits.cross_validation import Part, check_parts, make_parts

    good = table[table["problem"] == ""]
    labels, groups = list(good["label"]), list(good["group"])
    seeds = list(range(seed, seed + options.seeds))
    if (tiles.table["split"] != "").all():
        protocol = given_split(tiles, good, options)
        return protocol, 1, [Part("given", each, 0, None, list(good["split"])) for each in seeds]
    protocol = options.protocol or "grouped"
    if protocol != "random" and "" in groups:
        unnamed = good[good["group"] == ""]
        some = f"no group for {len(unnamed)} of {len(good)} tiles, such as {unnamed['path'].iloc[0]}"
        what = "no groups (slides, patients) are known" if len(unnamed) == len(good) else some
        raise BadInput(
            f"{options.data}: {what}, so tiles of one slide would stand in train and "
            "test: name them by --group-regex or a CSV column 'group', or accept that with --protocol random"
        )
    n_folds = options.folds or (len(set(groups)) if protocol == "logo" else 1)
    if options.random_control and n_folds < 2:
        raise BadInput(
            "--random-control compares the same tiles under both protocols, which takes folds: add --folds 5"
        )
    how: dict[str, Any] = {"n_folds": n_folds, "seeds": seeds, "fractions": options.fractions, "n_inner": options.inner}
    parts = make_parts(labels, groups, arm="random" if protocol == "random" else "grouped", **how)
    if options.random_control:
        parts += make_parts(labels, groups, arm="random", **how)
    check_parts(parts, labels)
    return protocol, n_folds, parts


def write_parts(
    table: "pd.DataFrame", parts: "list[Part]", common: Common, *, root: Path, protocol: str, n_folds: int, **how: Any
) -> Path:
    """Write the manifest of every part and then protocol.json; return its path."""
    from pipeline.names import SPLITS
    from pipeline.storage.protocol import PartEntry, Protocol, write_protocol
    from pipeline.tiles.manifest import write_manifest
    from pipeline.tiles.splits.cross_validation import absent_classes

    n_inner = len({part.inner for part in parts} - {None})
    plan = Protocol(common.run, protocol, n_folds, sorted({part.seed for part in parts}), n_inner, [])
    good = table["problem"] == ""
    labels = list(table.loc[good, "label"])
    for part in parts:
        own = table.copy()
        own.loc[good, "split"] = part.split
        tested = own[own["split"] == "test"]
        entry = PartEntry(
            name=part.name,
            arm=part.arm,
            seed=part.seed,
            fold=part.fold,
            inner=part.inner,
            manifest_sha256="",
            n={name: int((own["split"] == name).sum()) for name in SPLITS},
            test_groups=sorted(set(tested["group"]) - {""}) if part.arm != "random" else [],
            absent=absent_classes(part, labels),
        )
        path = plan.folder(entry) / "manifest.csv"
        details = how["details"] | {"protocol": protocol if part.arm == "given" else part.arm, "plan": "../.."}
        write_manifest(path, own, root=root, options=how["options"], details=details, outputs=[], seed=part.seed)
        plan.parts.append(dataclasses.replace(entry, manifest_sha256=atomic.sha256_file(path)))
    for name, classes in {(w, tuple(c)) for part in plan.parts for w, c in part.absent.items()}:
        n = sum(list(classes) == part.absent.get(name) for part in plan.parts)
        log.warning(f"prepare: {name} holds no tile of {', '.join(classes)} in {n} of {len(plan.parts)} parts")
    return write_protocol(plan)


def build_table(tiles: "TileSet", common: Common) -> "tuple[pd.DataFrame, Measurements]":
    """Return the manifest's table and the audit's measurements; a split stands there only where the data gives one.

    Raises:
        BadInput: too many unreadable tiles, fewer than two classes, or more names than can be stored.
    """
    from pipeline.runtime.console import list_names
    from pipeline.runtime.device import n_workers
    from pipeline.storage.embeddings.writer import check_classes
    from pipeline.tiles.audit.measure import survey
    from pipeline.tiles.manifest import tile_ids

    table = tiles.table.copy()
    table.insert(0, "tile_id", tile_ids(list(table["path"])))
    seen, measurements = survey(tiles.root, list(table["path"]), workers=max(1, n_workers(common.workers)))
    table[list(seen.columns)] = seen
    table.loc[table["problem"] != "", "split"] = ""
    bad = table[table["problem"] != ""]
    if len(bad) > common.max_bad * len(table):
        first = bad.iloc[0]
        raise BadInput(
            f"{tiles.root}: {len(bad)} of {len(table)} tiles cannot be read, more than --max-bad {common.max_bad:g}: "
            f"{list_names(list(bad['path']))}; the first: {first['problem']}"
        )
    # readable tiles of every class that was named: a class that lost all of its tiles must not go in silence
    counts = (table["problem"] == "").groupby(table["label"]).sum()
    if len(counts) < 2:
        raise BadInput(f"{tiles.root}: only one class ('{counts.index[0]}'): a comparison needs at least two")
    check_classes(list(counts.index))
    if (counts < 2).any():
        label = counts.index[counts < 2][0]
        raise BadInput(
            f"{tiles.root}: class '{label}' has {counts[label]} readable tile(s), which cannot be both trained on and "
            "tested: add tiles of it or leave the class out"
        )
    return table, measurements


def sides_of(table: "pd.DataFrame", parts: "list[Part]") -> "pd.Series[str]":
    """Return what decides whether two tiles can land on two sides of a split, for the audit."""
    arm = parts[0].arm
    if len(parts) == 1 or arm == "given":
        return table["split"]
    return table["tile_id" if arm == "random" else "group"]


def drop_other_plans(run: Path, parts: "list[Part]") -> None:
    """Remove the plan, and the pooled results, that this split does not have; parts' folders stay for the user."""
    from pipeline.storage.protocol import NAME

    stale = [] if len(parts) > 1 else [run / NAME]
    if len({part.arm for part in parts}) < 2:
        random_controls = [run / f"predictions-random{suffix}" for suffix in (".csv", ".parquet")]
        stale += [
            path for random_control in random_controls for path in (random_control, records.record_path(random_control))
        ]
    for path in stale:
        path.unlink(missing_ok=True)


def refuse_other_tiles(manifest: "Manifest", tiles: "TileSet") -> None:
    """Refuse to go on with a manifest that lists other tiles than stand there now.

    Raises:
        StaleInput: tiles were added, removed or renamed since; counts them and names one.
    """
    listed, there = set(manifest.table["path"]), set(tiles.table["path"])
    if listed != there:
        raise StaleInput(
            f"{tiles.root}: {len(there - listed)} tile(s) came and {len(listed - there)} went since {manifest.path} "
            f"was made (such as {min(listed ^ there)}): pass --restart to prepare anew, or give another --run"
        )


def run(common: Common, options: PrepareOptions) -> int:
    """Prepare the run folder; return the exit code (3 if tiles were left out)."""
    from pipeline.figures.tiles import draw_classes
    from pipeline.runtime.console import list_names
    from pipeline.tiles.audit.checks import audit, audit_markdown
    from pipeline.tiles.datasets.sources import find_tiles
    from pipeline.tiles.manifest import SCHEMA, read_manifest, write_manifest

    data = Path(options.data)
    is_name = options.data in NAMES
    if not is_name and data.is_dir() and common.run.resolve().is_relative_to(data.resolve()):
        raise BadInput(f"{common.run} lies among the tiles in {data}, its figures would be read as tiles: choose --run")
    path = common.run / "manifest.csv"
    chosen = plain(options)
    if not is_name:  # my_tiles/ is my_tiles, but a folder called demo is not the demo
        normal = os.path.normpath(data)
        chosen["data"] = f"./{normal}" if normal in NAMES else normal
    listing = [data] if data.is_file() and not is_name else []
    artifact = records.Artifact(path, SCHEMA, "prepare", chosen, listing, common.seed, protects="file")
    if not common.restart:
        freshness.check_replaceable(artifact)
    tiles = find_tiles(options.data_source, seed=common.seed)
    if not common.restart and path.is_file() and records.record_path(path).is_file():
        manifest = read_manifest(path)
        refuse_other_tiles(manifest, tiles)
        if freshness.reusable_record(artifact) is not None:
            return EXIT_OK if len(manifest.readable) == len(manifest.table) else EXIT_SKIPPED
    table, measurements = build_table(tiles, common)
    protocol, n_folds, parts = make_plan(tiles, table, options, common.seed)
    is_plan, good = len(parts) > 1, table["problem"] == ""
    table.loc[good, "split"] = parts[0].split
    sides = sides_of(table, parts).copy()
    if is_plan:
        table.loc[good, "split"] = "test"  # every tile is tested by the parts that were trained without it
    findings = audit(table, measurements, tiles, sides=sides, protocol=protocol)
    for finding in findings:
        log.info(f"prepare: {finding.severity}: {finding.line}")
    if any(finding.severity == "error" for finding in findings) and not options.allow_leakage:
        worst = next(finding for finding in findings if finding.severity == "error")
        raise BadInput(f"{worst.line}: remove one of them, or pass --allow-leakage")

    facts: dict[str, Any] = {
        "findings": [dataclasses.asdict(finding) for finding in findings],
        "n_tiles": len(table),
        "n_unreadable": int((table["problem"] != "").sum()),
    }
    outputs = [common.run / "audit.json", common.run / "audit.md", common.run / "figures" / "classes.png"]
    atomic.write_text(outputs[0], atomic.to_json(facts))
    report = audit_markdown(table, findings, measurements=measurements, name=tiles.name, protocol=protocol)
    atomic.write_text(outputs[1], report)
    draw_classes(outputs[2], table, root=tiles.root, per_class=SAMPLES, seed=common.seed)
    origin = options.data if is_name else "files"
    details = {"dataset": tiles.name, "origin": origin, "protocol": protocol, **tiles.facts}
    how: dict[str, Any] = {"root": tiles.root, "options": chosen, "details": details}
    drop_other_plans(common.run, parts)
    if is_plan:
        outputs.append(write_parts(table, parts, common, protocol=protocol, n_folds=n_folds, **how))
    write_manifest(path, table, **how, outputs=outputs, seed=common.seed, inputs=listing)
    counts = table["split"].value_counts()
    split = ", ".join(f"{counts.get(name, 0)} {name}" for name in ("train", "val", "test"))
    if is_plan:
        split = f"{len(parts)} parts of {n_folds} fold(s) and {options.seeds} seed(s)"
    classes = sorted(table["label"].unique())
    log.info(
        f"prepare: {len(table)} tiles of {len(classes)} classes ({list_names(classes)}; {split}; {protocol} split) in "
        f"{path}"
    )
    bad = list(table.loc[table["problem"] != "", "path"])
    if bad:
        log.info(f"prepare: {len(bad)} unreadable tile(s) left out, see audit.md: {list_names(bad)}")
        return EXIT_SKIPPED
    return EXIT_OK


main = Command("pipeline.prepare", __doc__, PrepareOptions, run, access="begin")
"""Entry point of `python -m pipeline.prepare`."""


if __name__ == "__main__":
    raise SystemExit(main())
