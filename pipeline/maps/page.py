"""map.md: what the maps show, how far the heads' maps agree, and how they stand against the truth."""

import numpy as np

from pipeline.evaluation.map_agreement import jaccard_index, mean_jaccard, share_agreed
from pipeline.evaluation.metrics import most_confused
from pipeline.maps.cells import areas
from pipeline.maps.map_data import Maps, classes_named, pairs
from pipeline.markup.document import Block, Document, Figure, Note, Section, Table, Text
from pipeline.markup.number_format import count, head_name, listing, number, percent

MOST_PAIRS = 3
"""Confused pairs of classes that are listed for each pair of heads."""


def build(maps: Maps, figures: dict[str, dict[str, str]]) -> Document:
    """Return the page.

    Args:
        maps: what there is to say.
        figures: head ("" for those of all heads) -> kind of figure -> file beside the page.
    """
    sections = [_slide(maps), _classes(maps, figures)]
    if maps.truth:
        sections.append(_truth(maps))
    if len(maps.by_head) > 1:
        sections.append(_agreement(maps, figures))
    sections += [_figures(maps, figures), _sources(maps)]
    heads = listing([head_name(head) for head in maps.by_head])
    return Document(f"Class map of {maps.title} by {heads}", sections)


def _slide(maps: Maps) -> Section:
    slide = maps.slide
    grid = next(iter(maps.by_head.values())).grid
    mm = slide.mpp / 1000
    blocks: list[Block] = []
    if maps.saw_source:
        blocks.append(
            Note(
                "The network was trained on tiles of this slide's source: the map looks better than one of a new slide "
                "would. Take a network that held the source out (--protocol logo)."
            )
        )
    elif maps.saw_source is None:
        blocks.append(
            Note(
                "It is not known whether the network was trained on tiles of this slide's source; if it was, the map "
                "flatters."
            )
        )
    blocks.append(
        Text(
            f"{slide.slide}: {slide.slide_width} x {slide.slide_height} px of {slide.mpp:g} um "
            f"({slide.slide_width * mm:.3g} x {slide.slide_height * mm:.3g} mm). {count(maps.n_tiles, 'tile')} of "
            f"{slide.patch_size_level0} px, one every {slide.stride_level0} px, seen by the network at {slide.tile_px} "
            f"px of {slide.tile_mpp:g} um; {maps.n_unreadable} could not be read and are shown as missing."
        )
    )
    overlap = slide.patch_size_level0 / slide.stride_level0
    how = (
        "a cell is the mean of the tiles that cover it, weighted by how much of it each covers, and its class the "
        "likeliest of that mean"
        if overlap > 1
        else "a cell is one tile, and its class the likeliest of the tile's calibrated probabilities"
        + (" (the stride is larger than the tile, so a tile stands for more than was looked at)" if overlap < 1 else "")
    )
    blocks.append(Text(f"The map has {grid.n_rows} x {grid.n_columns} cells of {slide.stride_level0} px: {how}."))
    blocks += [Note(remark) for remark in maps.remarks]
    return Section("The slide", blocks)


def _classes(maps: Maps, figures: dict[str, dict[str, str]]) -> Section:
    """The area of each class by each head."""
    found = {head: areas(of) for head, of in maps.by_head.items()}
    rows = [
        [name, *(f"{mm2[k]:.4g} ({percent(mm2[k] / mm2.sum(), 1)})" for _, mm2 in found.values())]
        for k, name in enumerate(maps.classes)
    ]
    total = ["all", *(f"{mm2.sum():.4g}" for _, mm2 in found.values())]
    caption = "Area in mm2 and share of the area that has a class."
    table = Table(["class", *map(head_name, maps.by_head)], [*rows, total], caption)
    together = figures[""].get("maps")
    shown = [Figure(together, "Slide and maps beside one another", "The slide and its maps.")] if together else []
    return Section("Classes", [*shown, table])


def _truth(maps: Maps) -> Section:
    """Accuracy and Jaccard index of each class."""
    first = next(iter(maps.truth.values()))
    indices = {head: jaccard_index(score.matrix) for head, score in maps.truth.items()}
    support = first.matrix.sum(axis=1)
    rows = [
        ["accuracy", str(support.sum()), *(number(share_agreed(score.matrix)) for score in maps.truth.values())],
        ["mean IoU", "", *(number(mean_jaccard(score.matrix)) for score in maps.truth.values())],
    ]
    rows += [
        [f"IoU of {name}", str(support[k]), *(number(float(index[k])) for index in indices.values())]
        for k, name in enumerate(maps.classes)
    ]
    n_tissue = int(support.sum()) + first.n_unmapped
    text = (
        f"Compared at the centres of squares of {first.side} px, the finer of the map's and the truth's. Of "
        f"{count(n_tissue, 'square')} of tissue {percent(first.n_unmapped / max(n_tissue, 1), 1)} are not mapped; "
        f"{count(first.n_on_glass, 'mapped square')} lie on glass, where there is no true class. Neither counts below. "
        "IoU (Jaccard index): squares that map and truth both give the class, over those that either gives it; the "
        "mean is over the classes that truly occur."
    )
    return Section("Against the truth", [Text(text), Table(["", "squares", *map(head_name, maps.truth)], rows)])


def _agreement(maps: Maps, figures: dict[str, dict[str, str]]) -> Section:
    """How far each pair of heads agrees, and on what they do not."""
    named = classes_named(maps)
    n_cells = int((named > 0).sum())
    rows, differing = [], []
    for pair in pairs(maps):
        title = f"{head_name(pair.head)} and {head_name(pair.other)}"
        rows.append([title, str(int(pair.matrix.sum())), percent(pair.share, 1), number(pair.kappa)])
        for one, two, n, _ in most_confused(pair.matrix)[:MOST_PAIRS]:
            differing.append([title, maps.classes[one], maps.classes[two], str(n)])
    heads = [head_name(head) for head in maps.by_head]
    blocks: list[Block] = [
        Text(
            f"All of {listing(heads)} name the same class for {percent((named == 1).sum() / n_cells, 1)} of the cells."
        ),
        Table(["heads", "cells", "same class", "kappa"], rows, "Cohen's kappa: 1 is full agreement, 0 that of chance."),
    ]
    if differing:
        caption = "Where they differ most: the class that the first names, and that of the second."
        blocks.append(Table(["heads", "the first", "the second", "cells"], differing, caption, left=3))
        blocks.append(Figure(figures[""]["disagreement"], "Where the heads differ", "Cells with more than one class."))
    return Section("Agreement of the heads", blocks)


def _figures(maps: Maps, figures: dict[str, dict[str, str]]) -> Section:
    blocks: list[Block] = []
    for head, found in maps.by_head.items():
        files, name = figures[head], head_name(head)
        unsure = float(np.nanmean(found.uncertainty))
        blocks.append(Figure(files["map"], f"Class map by {name}", f"{name}: the likeliest class of each cell."))
        blocks.append(
            Figure(files["uncertainty"], f"Uncertainty of {name}", f"{name}: entropy over ln K, mean {unsure:.2f}.")
        )
        blocks.append(Figure(files["probabilities"], f"Probabilities by {name}", f"{name}: probability of each class."))
    return Section("Maps", blocks)


def _sources(maps: Maps) -> Section:
    rows = [[name, value] for name, value in maps.sources.items()]
    return Section("Where it comes from", [Table(["what", "SHA-256 or name"], rows, left=2)])
