"""Build map.html: map.md as one file, with a map that shows the values of each cell."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

from pipeline.maps.cells import ClassMap
from pipeline.maps.map_data import MapData
from pipeline.markup.document import Document, Interactive, Section, Text
from pipeline.markup.inline_data import encode, inline_json, jpeg, read_scripts
from pipeline.markup.number_format import head_name

MOST_VALUES = 4_000_000
"""Bytes of classes, uncertainties and probabilities that the page carries, before base64: 10,000 cells of 8 classes by
four heads are 0.5 MB. Above, it leaves out the probabilities, and then the whole interactive map."""

LONGEST_PX = 1200
"""Longest side of the thumbnail."""

FOLDED = ("Maps", "Sources")
"""Sections that a browser shows when the reader opens them."""


def with_map(
    document: Document, maps: MapData, *, thumbnail: np.ndarray | None, colours: Sequence[tuple[int, int, int]]
) -> Document:
    """Return the page of a slide with the interactive map after its first section.

    Args:
        document: as `page.build` returns it.
        maps: the data.
        thumbnail: (h, w, 3) uint8 of the whole slide, if there is one.
        colours: red, green and blue (0 to 255) of each class.
    """
    payload = map_payload(maps, thumbnail=thumbnail, colours=colours)
    if payload is None:
        block: Interactive | Text = Text("The slide has too many cells for an interactive map; the figures show them.")
    else:
        block = Interactive(
            "slide-map",
            "The map of each head over the slide. Point at a cell for its class, uncertainty (entropy over ln K) and "
            "probabilities. This part needs JavaScript; the figures below do not.",
            inline_json(payload),
            read_scripts("pipeline.maps", ["map_view.js"]),
        )
    first, *rest = (dataclasses.replace(each, folded=each.title in FOLDED) for each in document.sections)
    return Document(document.title, [first, Section("Interactive map", [block]), *rest])


def map_payload(
    maps: MapData, *, thumbnail: np.ndarray | None, colours: Sequence[tuple[int, int, int]]
) -> Mapping[str, object] | None:
    """Return what map_view.js reads; None where the cells alone are more than `MOST_VALUES`. Arguments: `with_map`."""
    grid = next(iter(maps.by_head.values())).grid
    n_cells = len(maps.by_head) * grid.n_rows * grid.n_columns
    if 3 * n_cells > MOST_VALUES:
        return None
    with_p = n_cells * (3 + len(maps.classes)) <= MOST_VALUES
    return {
        "classes": maps.classes,
        "colours": [list(colour) for colour in colours],
        "heads": [_head(head_name(head), one, with_p=with_p) for head, one in maps.by_head.items()],
        "rows": grid.n_rows,
        "columns": grid.n_columns,
        "left": grid.left,
        "top": grid.top,
        "side": grid.side,
        "width": grid.width,
        "height": grid.height,
        "mpp": grid.mpp,
        "thumbnail": None if thumbnail is None else jpeg(_smaller(thumbnail)),
    }


def _head(title: str, class_map: ClassMap, *, with_p: bool) -> dict[str, str | None]:
    """Return the arrays of a head: classes int16, uncertainty and probabilities in steps of 1/255."""
    return {
        "title": title,
        "code": encode(class_map.code, "i2"),
        "uncertainty": encode(_bytes(class_map.uncertainty), "u1"),
        "p": encode(_bytes(class_map.p), "u1") if with_p else None,
    }


def _bytes(share: np.ndarray) -> np.ndarray:
    """Return values of 0..1 as 0..255, NaN as 0."""
    return np.asarray(np.rint(255 * np.clip(np.nan_to_num(share, nan=0.0), 0, 1)), np.uint8)


def _smaller(pixels: np.ndarray) -> np.ndarray:
    """Return a picture whose longest side is at most `LONGEST_PX`."""
    image = Image.fromarray(pixels)
    image.thumbnail((LONGEST_PX, LONGEST_PX))
    return np.asarray(image)
