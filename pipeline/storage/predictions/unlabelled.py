"""Read and write predictions.csv of `predict`: tiles of a slide or a folder, without labels."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.errors import BadArtifact
from pipeline.names import HEADS
from pipeline.storage import atomic
from pipeline.storage.csv_files import read_table
from pipeline.storage.predictions.csv_table import HeadOutput, check_probabilities, with_probabilities

SCHEMA = "tile_predictions/1.0"
COLUMNS = ("tile_id", "x", "y", "head", "predicted")
"""Columns before the probabilities `p_<class>`; x and y are empty for tiles that are not from a slide."""

BLOCK_ROWS = 20_000
"""Lines in memory at once."""


def write_predictions(
    path: Path,
    tile_id: Sequence[str],
    outputs: Mapping[str, HeadOutput],
    *,
    coords: np.ndarray | None,
    classes: Sequence[str],
) -> None:
    """Write the table, head by head, with the same N tiles in the same order.

    Args:
        path: predictions.csv.
        tile_id: N names.
        outputs: head -> its output for the tiles.
        coords: (N, 2) level-0 x and y of a slide's tiles.
        classes: K names.
    """
    with atomic.atomic(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        for i, block in enumerate(_blocks(tile_id, outputs, coords, classes)):
            block.to_csv(file, index=False, header=i == 0, float_format="%.9g", lineterminator="\n")


def _blocks(
    tile_id: Sequence[str], outputs: Mapping[str, HeadOutput], coords: np.ndarray | None, classes: Sequence[str]
) -> Iterator[pd.DataFrame]:
    names = np.array(classes, dtype=object)
    for head, output in outputs.items():
        for start in range(0, len(tile_id), BLOCK_ROWS):
            part = slice(start, start + BLOCK_ROWS)
            block = pd.DataFrame({"tile_id": np.array(tile_id[part], dtype=object)})
            block["x"], block["y"] = ("", "") if coords is None else coords[part].T
            block["head"], block["predicted"] = head, names[output.predicted[part]]
            yield with_probabilities(block, output.p[part], classes)


def read_predictions(path: Path) -> pd.DataFrame:
    """Read the table and check it against its schema; the caller checks its record.

    Returns:
        The file's columns; x and y are int64, or empty texts.

    Raises:
        BadArtifact: names the rule that the file breaks.
    """

    def refuse(rule: str) -> BadArtifact:
        return BadArtifact(f"{path}: {rule}: run `python -m pipeline.predict --restart`")

    table = read_table(path, texts=COLUMNS, refuse=refuse)
    names = list(table.columns[len(COLUMNS) :])
    if not names or any(name[:2] != "p_" for name in names):
        raise refuse(f"its columns are not {', '.join(COLUMNS)}, p_<class>, ...")
    check_probabilities(table, names, refuse)
    if not set(table["predicted"]) <= {name[2:] for name in names} or not set(table["head"]) <= set(HEADS):
        raise refuse("a class or head is unknown")
    empty = (table["x"] == "") & (table["y"] == "")
    if not empty.all():
        if not (table["x"].str.fullmatch(r"\d{1,10}") & table["y"].str.fullmatch(r"\d{1,10}")).all():
            raise refuse("a coordinate is not a whole number from 0 up")
        table = table.astype({"x": np.int64, "y": np.int64})
    tiles = [rows[["tile_id", "x", "y"]].reset_index(drop=True) for _, rows in table.groupby("head", sort=False)]
    if any(not rows.equals(tiles[0]) for rows in tiles) or tiles[0]["tile_id"].duplicated().any():
        raise refuse("the heads have different tiles, or a tile is doubled")
    return table
