"""Write predictions.parquet block by block, head by head."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.runtime.extras import import_library
from pipeline.storage.predictions.columns import BLOCK_ROWS, CODED, COLUMNS, PART_COLUMNS


def require_pyarrow() -> Any:
    """Return the module pyarrow.parquet.

    Raises:
        PipelineError: it is not installed.
    """
    return import_library("pyarrow.parquet", extra="large", needed_for="a table of this size is a Parquet file, which")


@contextlib.contextmanager
def parquet_lines(path: Path) -> Iterator[Callable[[pd.DataFrame], None]]:
    """Yield a function that adds lines of one head to a new Parquet file; probabilities become float32.

    Args:
        path: the file; it is complete when the block ends.
    """
    parquet = require_pyarrow()
    import pyarrow as pa

    writer = None

    def add(lines: pd.DataFrame) -> None:
        nonlocal writer
        types = dict.fromkeys(COLUMNS, pa.string()) | dict.fromkeys(PART_COLUMNS, pa.int32())
        schema = pa.schema([(name, types.get(name, pa.float32())) for name in lines.columns])
        if writer is None:
            texts = list(CODED)
            writer = parquet.ParquetWriter(path, schema, compression="zstd", use_dictionary=texts)
        for start in range(0, len(lines), BLOCK_ROWS):
            block = lines.iloc[start : start + BLOCK_ROWS]
            arrays = [pa.array(block[field.name].to_numpy().astype(_numpy(field.type, pa))) for field in schema]
            writer.write_table(pa.table(arrays, schema=schema), row_group_size=BLOCK_ROWS)

    try:
        yield add
    finally:
        if writer is not None:
            writer.close()


def _numpy(kind: Any, pa: Any) -> Any:
    return {pa.float32(): np.float32, pa.int32(): np.int32}.get(kind, object)
