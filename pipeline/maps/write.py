"""Write the files of a slide's maps next to predictions.csv: figures, tables, GeoJSON, page."""

from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np

from pipeline.errors import BadArtifact
from pipeline.evaluation.validate import IntArray
from pipeline.figures.style import class_colours, short
from pipeline.maps import figures as draw
from pipeline.maps.cells import NONE, Grid
from pipeline.maps.geojson import Objects, write_geojson
from pipeline.maps.ground_truth import GLASS, GroundTruth
from pipeline.maps.html_page import with_map
from pipeline.maps.map_data import SOURCE_WORDS, MapData, n_classes_predicted
from pipeline.maps.page import build
from pipeline.maps.tables import agreement_csv, areas_csv, iou_csv
from pipeline.markup.document import to_html, to_markdown
from pipeline.markup.number_format import head_name
from pipeline.names import HEADS, RunFile
from pipeline.storage import atomic, records

PER_HEAD = ("map", "uncertainty", "probabilities")
"""Figures of each head."""

SHARED = (
    "maps.png",
    RunFile.GROUPS,
    "outlier.png",
    "disagreement.png",
    "areas.csv",
    "agreement.csv",
    "iou.csv",
    "map.md",
    "map.html",
)
"""Files for all heads together."""


def head_file(kind: str, suffix: str, head: str, *, alone: bool) -> str:
    """Return the name of a head's file: `map.png` if one head was requested, else `map-svm.png`."""
    return f"{kind}{suffix}" if alone else f"{kind}-{head}{suffix}"


def all_names() -> set[str]:
    """Return every name that a file written here can have."""
    kinds = [*((kind, ".png") for kind in PER_HEAD), ("map", ".geojson")]
    own = {head_file(*kind, head, alone=alone) for kind in kinds for head in HEADS for alone in (True, False)}
    return {*SHARED, *own}


def remove_earlier(out: Path, kept: Collection[Path]) -> None:
    """Remove the files of an earlier map that the record in the folder lists and that were not written again.

    Called before the new record is written. A file that the record does not list is the user's and stays. Other names
    in the record are ignored, because the record can come from anyone.
    """
    table = out / RunFile.PREDICTIONS
    if not records.record_path(table).is_file():
        return
    try:
        earlier = records.read_record_alone(table)["outputs"]
    except BadArtifact:
        return
    for name in (set(earlier) & all_names()) - {path.name for path in kept}:
        (out / name).unlink(missing_ok=True)


def truth_cells(truth: GroundTruth, grid: Grid) -> IntArray:
    """Return the true class at the centre of each cell of a grid, (R, C), or `NONE` on glass."""
    y = grid.top + (np.arange(grid.n_rows) + 0.5) * grid.side
    x = grid.left + (np.arange(grid.n_columns) + 0.5) * grid.side
    row, column = (
        np.minimum((at // truth.side).astype(np.int64), n - 1) for at, n in zip((y, x), truth.code.shape, strict=True)
    )
    code = truth.code[np.ix_(row, column)]
    return np.where(code == GLASS, NONE, code)


def write_files(
    out: Path,
    maps: MapData,
    *,
    thumbnail: np.ndarray | None,
    truth: GroundTruth | None,
    objects: Objects | None,
    tables: Mapping[str, str] | None = None,
) -> list[Path]:
    """Write tables, figures, GeoJSON and the page; return the paths.

    Args:
        out: the folder.
        maps: the data.
        thumbnail: (h, w, 3) uint8 of the whole slide, if there is one.
        truth: ground truth to draw next to the maps.
        objects: kind of the GeoJSON's objects; None: no GeoJSON.
        tables: name -> text of further tables.

    Raises:
        PipelineError: regions are requested and shapely is not installed.
    """
    heads, alone = maps.by_head, len(maps.by_head) == 1
    grid = next(iter(heads.values())).grid
    view = draw.SlideView(thumbnail, grid, short(maps.slide.slide, 60) + SOURCE_WORDS[maps.saw_source])
    texts = {"areas.csv": areas_csv(maps), **(tables or {})}
    figures: dict[str, dict[str, str]] = {"": {}}
    if not alone:
        texts["agreement.csv"] = agreement_csv(maps)
        figures[""]["disagreement"] = "disagreement.png"
        draw.draw_disagreement(out / "disagreement.png", view, n_classes_predicted(maps))
    if maps.outlier is not None:
        figures[""]["outlier"] = "outlier.png"
        draw.draw_outliers(out / "outlier.png", view, maps.outlier)
    if maps.scores:
        texts["iou.csv"] = iou_csv(maps)
    if not alone or truth is not None:
        codes = {} if truth is None else {"ground truth": truth_cells(truth, grid)}
        codes |= {head_name(head): class_map.code for head, class_map in heads.items()}
        figures[""]["maps"] = "maps.png"
        draw.draw_side_by_side(out / "maps.png", view, codes, classes=maps.classes)
    written = []
    for head, class_map in heads.items():
        files = {kind: head_file(kind, ".png", head, alone=alone) for kind in PER_HEAD}
        figures[head], name = files, head_name(head)
        draw.draw_class_map(out / files["map"], view, class_map.code, classes=maps.classes, head=name)
        draw.draw_uncertainty(out / files["uncertainty"], view, class_map.uncertainty, head=name)
        draw.draw_probabilities(out / files["probabilities"], view, class_map.p, classes=maps.classes, head=name)
        if objects is not None:
            path = out / head_file("map", ".geojson", head, alone=alone)
            write_geojson(
                path,
                class_map,
                classes=maps.classes,
                colours=class_colours(len(maps.classes)),
                objects=objects,
                name=head + (" (saw this source)" if maps.saw_source else ""),
                origin=(maps.slide.bounds_x, maps.slide.bounds_y),
                about=about(maps, head),
            )
            written.append(path)
    document = build(maps, figures)
    texts["map.md"] = to_markdown(document)
    whole = with_map(document, maps, thumbnail=thumbnail, colours=class_colours(len(maps.classes)))
    texts["map.html"] = to_html(whole, folder=out)
    for file, text in texts.items():
        atomic.write_text(out / file, text)
    names = [file for files in figures.values() for file in files.values()]
    written += [out / name for name in (*names, *texts)]
    return written


def about(maps: MapData, head: str) -> Mapping[str, object]:
    """Return the facts that a GeoJSON file holds about itself, because it is passed on without its folder."""
    return {
        "slide": maps.slide.slide,
        "slide_sha256": maps.slide.slide_sha256,
        "mpp": maps.slide.mpp,
        "origin_level0": [maps.slide.bounds_x, maps.slide.bounds_y],
        "head": head,
        "network_saw_source": maps.saw_source,
        "sources": dict(maps.sources),
    }
