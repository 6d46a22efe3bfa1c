"""Build map.md: the maps, the areas of the classes, the agreement of the heads, and scores against a ground truth."""

import numpy as np

from pipeline.evaluation.map_agreement import jaccard_index, mean_jaccard, share_agreed
from pipeline.evaluation.metrics import most_confused
from pipeline.inference.outliers import Rejection
from pipeline.maps.cells import REJECTED, class_areas
from pipeline.maps.map_data import MapData, n_classes_predicted, pairs
from pipeline.markup.document import Block, Document, Figure, Note, Section, Table, Text
from pipeline.markup.number_format import count, head_name, listing, number, percent

MOST_PAIRS = 3
"""Confused pairs of classes that are listed for each pair of heads."""


def build(maps: MapData, figures: dict[str, dict[str, str]]) -> Document:
    """Return the page.

    Args:
        maps: the data.
        figures: head ("" for figures of all heads) -> kind of figure -> file next to the page.
    """
    sections = [_slide(maps), _classes(maps, figures)]
    if maps.rejection is not None:
        sections.append(_outliers(maps, maps.rejection, figures))
    if maps.scores:
        sections.append(_ground_truth(maps))
    if len(maps.by_head) > 1:
        sections.append(_agreement(maps, figures))
    sections += [_figures(maps, figures), _sources(maps)]
    heads = listing([head_name(head) for head in maps.by_head])
    return Document(f"Class map of {maps.title} by {heads}", sections)


def _slide(maps: MapData) -> Section:
    slide = maps.slide
    grid = next(iter(maps.by_head.values())).grid
    mm = slide.mpp / 1000
    blocks: list[Block] = []
    if maps.saw_source:
        blocks.append(
            Note(
                "The network was trained on tiles of this slide's source: the map is optimistic. Use a network that "
                "held the source out (--protocol logo)."
            )
        )
    elif maps.saw_source is None:
        blocks.append(
            Note(
                "It is not known whether the network was trained on tiles of this slide's source. If it was, the map "
                "is optimistic."
            )
        )
    blocks.append(
        Text(
            f"{slide.slide}: {slide.slide_width} x {slide.slide_height} px of {slide.mpp:g} um "
            f"({slide.slide_width * mm:.3g} x {slide.slide_height * mm:.3g} mm). {count(maps.n_tiles, 'tile')} of "
            f"{slide.patch_size_level0} px, one every {slide.stride_level0} px, resized for the network to "
            f"{slide.tile_px} px of {slide.tile_mpp:g} um; {maps.n_unreadable} could not be read and are shown as "
            "missing."
        )
    )
    overlap = slide.patch_size_level0 / slide.stride_level0
    rule = (
        "A cell has the mean probabilities of the tiles that cover it, weighted by the covered part of the cell, and "
        "the class with the highest mean"
        if overlap > 1
        else "A cell is one tile and has the class with the highest calibrated probability"
        + (" (the stride is larger than the tile, so that a cell is larger than the tile in it)" if overlap < 1 else "")
    )
    blocks.append(Text(f"The map has {grid.n_rows} x {grid.n_columns} cells of {slide.stride_level0} px. {rule}."))
    blocks += [Note(remark) for remark in maps.remarks]
    return Section("The slide", blocks)


def _classes(maps: MapData, figures: dict[str, dict[str, str]]) -> Section:
    """Return the area of each class by each head."""
    areas_mm2 = [class_areas(class_map)[1] for class_map in maps.by_head.values()]
    rows = [
        [name, *(f"{mm2[k]:.4g} ({percent(mm2[k] / (mm2.sum() or 1), 1)})" for mm2 in areas_mm2)]
        for k, name in enumerate(maps.classes)
    ]
    total = ["all", *(f"{mm2.sum():.4g}" for mm2 in areas_mm2)]
    caption = "Area in mm2 and share of the area that has a class."
    table = Table(["class", *map(head_name, maps.by_head)], [*rows, total], caption)
    together = figures[""].get("maps")
    shown = [Figure(together, "Slide and maps side by side", "The slide and its maps.")] if together else []
    return Section("Classes", [*shown, table])


def _outliers(maps: MapData, rejection: Rejection, figures: dict[str, dict[str, str]]) -> Section:
    """Return how outliers were found, and how well classes are found that the reference lacks."""
    class_map = next(iter(maps.by_head.values()))
    rejected = class_map.code == REJECTED
    mm2 = float(class_map.grid.areas_mm2[rejected].sum())
    text = (
        f"{count(int(rejected.sum()), 'cell')} ({mm2:.4g} mm2) are rejected: their tiles are far from the "
        f"{count(rejection.n_train, 'training tile')} of all classes (Mahalanobis distance of the embeddings). The "
        f"threshold rejects at most {percent(rejection.rate, 1)} of tiles like the {rejection.n_held_out} validation "
        "tiles. Rejected cells have no class in the areas above."
    )
    blocks: list[Block] = [Text(text), Figure(figures[""]["outlier"], "Outlier score", "Outlier score of each cell.")]
    if rejection.aurocs:
        rows = [[name, number(auroc)] for name, auroc in rejection.aurocs.items()]
        caption = (
            "AUROC with which validation tiles of a class are outliers if its training tiles are left out of the "
            "reference. The network itself was trained with them: new classes can be harder to find."
        )
        blocks.append(Table(["class left out", "AUROC"], rows, caption))
    return Section("Rejected tiles", blocks)


def _ground_truth(maps: MapData) -> Section:
    """Return accuracy, and the Jaccard index of each class, of all cells and of the accepted ones."""
    scores = {head_name(head): score for head, score in maps.scores.items()}
    scores |= {f"{head_name(head)}, accepted cells": score for head, score in maps.accepted.items()}
    first = next(iter(scores.values()))
    support = first.matrix.sum(axis=1)
    indices = [jaccard_index(score.matrix) for score in scores.values()]
    rows = [
        ["accuracy", str(support.sum()), *(number(share_agreed(score.matrix)) for score in scores.values())],
        ["mean IoU", "", *(number(mean_jaccard(score.matrix)) for score in scores.values())],
    ]
    rows += [
        [f"IoU of {name}", str(support[k]), *(number(float(index[k])) for index in indices)]
        for k, name in enumerate(maps.classes)
    ]
    n_tissue = int(support.sum()) + first.n_unmapped
    text = (
        f"Map and ground truth are compared at the centres of squares of {first.side} px, the finer side of both. "
        f"The tissue has {count(n_tissue, 'square')}; {percent(first.n_unmapped / max(n_tissue, 1), 1)} are not "
        f"mapped. {count(first.n_on_glass, 'mapped square')} on glass have no true class. The scores leave both out. "
        "IoU (Jaccard index) of a class: squares with the class in map and ground truth, over squares with the class "
        "in either. The mean is over the classes of the ground truth."
    )
    for head, score in maps.accepted.items():
        kept = int(score.matrix.sum())
        text += (
            f" {head_name(head)}: {kept} of {support.sum()} squares are accepted "
            f"({percent(kept / max(support.sum(), 1), 1)}), the others rejected."
        )
    return Section("Agreement with the ground truth", [Text(text), Table(["", "squares", *scores], rows)])


def _agreement(maps: MapData, figures: dict[str, dict[str, str]]) -> Section:
    """Return the agreement of each pair of heads, and the classes on which they differ."""
    n_predicted = n_classes_predicted(maps)
    n_cells = int((n_predicted > 0).sum())
    rows, differing = [], []
    for pair in pairs(maps):
        title = f"{head_name(pair.head)} and {head_name(pair.other)}"
        rows.append([title, str(int(pair.matrix.sum())), percent(pair.share, 1), number(pair.kappa)])
        for one, two, n, _ in most_confused(pair.matrix)[:MOST_PAIRS]:
            differing.append([title, maps.classes[one], maps.classes[two], str(n)])
    heads = [head_name(head) for head in maps.by_head]
    share = percent((n_predicted == 1).sum() / n_cells, 1)
    blocks: list[Block] = [
        Text(f"{listing(heads)} predict the same class for {share} of the cells."),
        Table(["heads", "cells", "same class", "kappa"], rows, "Cohen's kappa: 1 is full agreement, 0 that of chance."),
    ]
    if differing:
        caption = "The most frequent differences: the class by the first head, and by the second."
        blocks.append(Table(["heads", "the first", "the second", "cells"], differing, caption, left=3))
        blocks.append(Figure(figures[""]["disagreement"], "Where the heads differ", "Cells with more than one class."))
    return Section("Agreement of the heads", blocks)


def _figures(maps: MapData, figures: dict[str, dict[str, str]]) -> Section:
    blocks: list[Block] = []
    for head, class_map in maps.by_head.items():
        files, name = figures[head], head_name(head)
        mean = float(np.nanmean(class_map.uncertainty))
        blocks.append(Figure(files["map"], f"Class map by {name}", f"{name}: the likeliest class of each cell."))
        blocks.append(
            Figure(files["uncertainty"], f"Uncertainty of {name}", f"{name}: entropy over ln K, mean {mean:.2f}.")
        )
        blocks.append(Figure(files["probabilities"], f"Probabilities by {name}", f"{name}: probability of each class."))
    return Section("Maps", blocks)


def _sources(maps: MapData) -> Section:
    rows = [[name, value] for name, value in maps.sources.items()]
    return Section("Sources", [Table(["file or fact", "SHA-256 or name"], rows, left=2)])
