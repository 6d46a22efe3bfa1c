"""Bin streamed rows on disk: XGBoost's external memory (ExtMemQuantileDMatrix) grows trees page by page.

The bins' borders come from a stratified sample, so that no memory grows with the rows. Where the sample is all rows,
the trees are those of the matrix in memory.
"""

from collections.abc import Callable
from typing import Any

import xgboost

from pipeline.heads.streamed_rows import StreamedRows
from pipeline.storage import atomic


def bins_bytes(n_rows: int, width: int, *, block_rows: int, max_bin: int) -> int:
    """Return the size of the bins' file: bounded from above, by some percent for pages of many rows.

    Each value has its bin by rows and by columns, a byte each, and a bit for a missing value; each row has its start;
    each page has counts of all bins.
    """
    pages = -(-n_rows // block_rows)
    return n_rows * (2 * width + width // 8 + 9) + pages * (width * (8 * max_bin + 20) + 4096)


class _Blocks(xgboost.DataIter):
    """The rows in the form that XGBoost reads twice: for their number and for their bins."""

    def __init__(self, rows: StreamedRows) -> None:
        self.rows, self.left = rows, rows.blocks()
        super().__init__(cache_prefix=str(rows.cache / "bins"))

    def reset(self) -> None:
        """Begin again."""
        self.left = self.rows.blocks()

    def next(self, input_data: Callable[..., Any]) -> bool:
        """Pass the next block to XGBoost; return whether there was one."""
        for _, block in self.left:
            input_data(data=block.features, label=block.y)
            return True
        return False


def external_matrix(
    rows: StreamedRows, *, max_bin: int, jobs: int, seed: int, like: xgboost.DMatrix | None
) -> xgboost.ExtMemQuantileDMatrix:
    """Bin the features into files below the rows' cache folder; they are removed with the matrix.

    Args:
        rows: to bin.
        max_bin: bins of a feature.
        jobs: threads.
        seed: seed of the sample that the bins' borders come from.
        like: another matrix, whose borders are taken.

    Raises:
        DiskFull: no room for the bins.
    """
    size = bins_bytes(len(rows.y), rows.features.width, block_rows=rows.block_rows, max_bin=max_bin)
    atomic.check_room_by_trying(rows.cache / "bins", size)  # XGBoost ends the process where a disk is full
    if like is None:
        known = rows.sample(seed=seed)
        like = xgboost.QuantileDMatrix(known.features, known.y, max_bin=max_bin, nthread=jobs)
    return xgboost.ExtMemQuantileDMatrix(_Blocks(rows), max_bin=max_bin, ref=like, nthread=jobs)
