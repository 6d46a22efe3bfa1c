"""Draw the annotations and the labelled tiles of a slide over its thumbnail, for checking."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw, ImageFont

from pipeline.annotations.regions import Regions, parts_of
from pipeline.figures.style import short
from pipeline.slides.base import Thumbnail
from pipeline.storage.atomic import atomic

LINE_PX = 24
"""Height of a line of the legend."""

OTHER = (0, 0, 0)
"""Colour of annotations whose class takes tiles away, such as Ignore*."""


def draw_annotations(
    path: Path,
    thumbnail: Thumbnail,
    regions: Regions,
    table: pd.DataFrame,
    *,
    side: int,
    colours: Mapping[str, tuple[int, int, int]],
) -> None:
    """Draw the outlines of the annotations and a square for each tile in the colour of its class, with a legend.

    Args:
        path: the PNG.
        thumbnail: thumbnail of the slide.
        regions: regions of the classes in level-0 px.
        table: columns x, y (level-0 px) and label of the tiles.
        side: side of a tile in level-0 px.
        colours: colour of each class that tiles can have.
    """
    high, wide, _ = thumbnail.pixels.shape
    legend = [name for name in regions if name in colours]
    figure = Image.new("RGB", (wide, high + LINE_PX * (len(legend) + 1)), "white")
    figure.paste(Image.fromarray(thumbnail.pixels), (0, 0))
    draw, font = ImageDraw.Draw(figure, "RGBA"), ImageFont.load_default(14)
    for name, region in regions.items():
        for part in parts_of(region):
            for ring in (part.exterior, *part.interiors):
                points = np.asarray(ring.coords) / thumbnail.downsample
                draw.line([tuple(point) for point in points], fill=colours.get(name, OTHER), width=2)
    for x, y, label in zip(table["x"], table["y"], table["label"], strict=True):
        corners = [x, y, x + side, y + side]
        draw.rectangle([corner / thumbnail.downsample for corner in corners], fill=(*colours[label], 70))
    draw.rectangle([0, high, wide, figure.height], fill="white")
    for line, name in enumerate(legend):
        top = high + line * LINE_PX
        draw.rectangle([4, top + 4, 20, top + 20], fill=colours[name])
        draw.text((28, top + 4), f"{short(name)}: {int((table['label'] == name).sum())} tiles", fill="black", font=font)
    text = f"tiles of {side} px; black: annotations that take tiles away"
    draw.text((4, figure.height - LINE_PX + 4), text, fill="black", font=font)
    with atomic(path) as temporary:
        figure.save(temporary, format="PNG")
