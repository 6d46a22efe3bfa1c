"""Cut annotated slides into a data set of labelled tiles, which are squares of the slides and not stored."""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pandas as pd

from pipeline.annotations.checks import SlideFacts, annotation_findings, check_place, slide_facts
from pipeline.annotations.geojson import Annotations, is_class, read_annotations
from pipeline.annotations.labels import CutOptions, covers, draw_evenly, labelled
from pipeline.annotations.listing import AnnotatedSlide, Listing
from pipeline.annotations.overlay import draw_annotations
from pipeline.annotations.regions import combine
from pipeline.errors import BadArtifact, BadInput
from pipeline.figures.style import class_colours
from pipeline.names import RunFile
from pipeline.runtime.console import log
from pipeline.slides.grid import THUMBNAIL_PX, Tiling, squares_of
from pipeline.slides.openslide_reader import open_slide
from pipeline.slides.tissue import find_tissue
from pipeline.storage import atomic, records
from pipeline.tiles.audit.finding import Finding
from pipeline.tiles.datasets.names import check_spellings
from pipeline.tiles.datasets.sources import SAME_NAMES, TileSet, plain_path
from pipeline.tiles.decoding import SQUARE, square_name

FIGURES = "figures/annotations"
"""Folder in a run with an overlay of each slide."""

TISSUE_PX = 512
"""Longest side of the thumbnail on which tissue is compared with the annotations."""


def overlay_path(run: Path, slide: AnnotatedSlide) -> Path:
    """Return the path of the figure of a slide's annotations."""
    return run / FIGURES / f"{slide.entry.name}.png"


def slides_root(listing: Listing) -> Path:
    """Return the folder that contains all slides; paths of tiles are relative to it."""
    return Path(os.path.commonpath([plain_path(slide.entry.path).parent for slide in listing.slides]))


def slide_hashes(listing: Listing) -> dict[str, str]:
    """Return path of each slide relative to `slides_root` -> its SHA-256."""
    root = slides_root(listing)
    paths = [plain_path(slide.entry.path) for slide in listing.slides]
    return {path.relative_to(root).as_posix(): atomic.sha256_file(path) for path in paths}


def earlier_overlays(run: Path) -> set[Path]:
    """Return the overlays that an earlier run of prepare recorded."""
    try:
        outputs = records.read_record_alone(run / RunFile.MANIFEST)["outputs"]
    except BadArtifact:
        return set()
    return {run / name for name in outputs if Path(name).parent.as_posix() == FIGURES}


def remove_squares(folder: Path, used: Iterable[Path]) -> None:
    """Remove the stored tiles of an earlier run of prepare from a folder of the run.

    Args:
        folder: the folder, which may be missing.
        used: files that are tiles of now.
    """
    if folder.is_symlink():  # the user's, which may lead out of the run
        return
    squares = [file for file in folder.rglob("*.png") if SQUARE.fullmatch(file.name)]
    kept = {os.path.realpath(path) for path in used} if squares else set()
    gone = [file for file in squares if os.path.realpath(file) not in kept]
    for file in gone:
        file.unlink()
    for parent in {file.parent for file in gone}:
        if not any(parent.iterdir()):
            parent.rmdir()


def annotated_tiles(
    listing: Listing,
    options: CutOptions,
    *,
    run: Path,
    hashes: Mapping[str, str],
    seed: int,
    allow_similar_names: bool,
    force: bool,
) -> TileSet:
    """Return the labelled tiles of annotated slides, and write an overlay of each slide into the run.

    Args:
        listing: the slides.
        options: how they are cut.
        run: the run folder.
        hashes: of the slides, see `slide_hashes`.
        seed: seed of the draw of tiles.
        allow_similar_names: take two spellings of a class or group for two.
        force: cut slides that are coarser than the tiles, and take coordinates that look like micrometres for px.

    Raises:
        BadInput: annotations that cannot be used or are those of another slide, or no tile has a class.
        BadSlide: a slide cannot be used.
    """
    files = {path for slide in listing.slides for path in slide.files}
    read = {path: read_annotations(path, predicted=options.predicted) for path in sorted(files)}
    names = sorted({name for file in read.values() for name in file.names if is_class(name)})
    if not allow_similar_names:
        groups = [slide.group for slide in listing.slides]
        for found, what in ((names, "classes"), (groups, "groups")):
            check_spellings(found, what=what, where=listing.name, option=SAME_NAMES)
    colours = dict(zip(names, class_colours(len(names)), strict=True))
    tables, facts = [], []
    for i, slide in enumerate(listing.slides):
        log.info(f"prepare: slide {i + 1} of {len(listing.slides)}, {slide.entry.name}")
        own = [read[path] for path in slide.files]
        table, found_facts = _cut(slide, own, options, overlay=overlay_path(run, slide), colours=colours, force=force)
        tables.append(table)
        facts.append(found_facts)
    table = pd.concat(tables, ignore_index=True)
    if table.empty:
        raise BadInput(
            f"{listing.name}: no tile of {options.tile_px} px at {options.tile_mpp:g} um/px has a class: draw larger "
            "annotations, or lower --min-cover or --cut-px"
        )
    if options.per_class:
        table = draw_evenly(table, per_class=options.per_class, seed=seed)
    places = {slide.entry.name: path for slide, path in zip(listing.slides, hashes, strict=True)}
    table["path"] = table["slide"].map(places) + "/" + table["file"]
    table["split"] = table["slide"].map({slide.entry.name: slide.split for slide in listing.slides})
    return TileSet(
        listing.name,
        slides_root(listing),
        table[["path", "label", "group", "split"]].sort_values("path", ignore_index=True),
        ignored=listing.ignored,
        notes=listing.notes,
        facts={
            "mpp": options.tile_mpp,
            "slides": {slide.entry.path.name: slide.group for slide in listing.slides},
            "slide_sha256": hashes,
        },
        findings=[*annotation_findings(facts), *_group_findings(listing.slides)],
    )


def _group_findings(slides: Sequence[AnnotatedSlide]) -> list[Finding]:
    """Return a finding where each slide is a group of its own, although a patient may have several slides."""
    if len(slides) == 1 or any(slide.group != slide.entry.name for slide in slides):
        return []
    text = "each slide is a group: if a patient has several slides, name patients in a column group or --group-regex"
    return [Finding("warning", text, [])]


def _cut(
    slide: AnnotatedSlide,
    files: Sequence[Annotations],
    options: CutOptions,
    *,
    overlay: Path,
    colours: Mapping[str, tuple[int, int, int]],
    force: bool,
) -> tuple[pd.DataFrame, SlideFacts]:
    """Return the tiles of a slide (columns slide, file, label, group, part) and the facts about its annotations."""
    tiling = Tiling(options.tile_px, options.tile_mpp, overlap=options.overlap)
    with open_slide(slide.entry.path, slide.entry.mpp) as image:
        squares = squares_of(image, tiling, force=force)
        thumbnail, small = image.thumbnail(THUMBNAIL_PX), image.thumbnail(TISSUE_PX)
        tissue = find_tissue(small, mpp=image.mpp, threshold=None).mask
        regions = combine(files, origin=image.bounds)
        outside = check_place(image, small, tissue, regions, force=force)
        table = labelled(covers(regions, image, squares), min_cover=options.min_cover)
        corrected = {}
        if len(files) > 1:
            first = covers(combine(files[:1], origin=image.bounds), image, squares)
            corrected = _changes(labelled(first, min_cover=options.min_cover), table)
        mpp = image.mpp
    facts = slide_facts(
        slide.entry.name,
        files,
        regions,
        mpp=mpp,
        squares=squares,
        least_px2=options.min_cover * squares.side**2,
        outside=outside,
        corrected=corrected,
    )
    draw_annotations(overlay, thumbnail, regions, table, side=squares.side, colours=colours)
    names = [
        square_name(x, y, side=squares.side, px=squares.tile_px) for x, y in zip(table["x"], table["y"], strict=True)
    ]
    return table.assign(slide=slide.entry.name, file=names, group=slide.group), facts


def _changes(before: pd.DataFrame, after: pd.DataFrame) -> dict[str, int]:
    """Return the number of tiles with another class, with a class for the first time, and without one now."""
    both = before.merge(after, on=["x", "y"], how="outer", suffixes=("", "_after"))
    new, removed = both["label"].isna(), both["label_after"].isna()
    changed = ~new & ~removed & (both["label"] != both["label_after"])
    return {"changed": int(changed.sum()), "new": int(new.sum()), "removed": int(removed.sum())}
