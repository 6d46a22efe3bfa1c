"""Predict the rows of an embeddings file with saved heads."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.heads.saved import SavedHeads
    from pipeline.storage.embeddings.reader import Embeddings
    from pipeline.storage.predictions.csv_table import HeadOutput


def predict_rows(saved: "SavedHeads", content: "Embeddings", path: Path) -> "dict[str, HeadOutput]":
    """Return what each head says of the rows of an embeddings file that stand for a tile; they are read in blocks.

    Raises:
        Interrupted: SIGINT or SIGTERM; nothing is kept.
    """
    import numpy as np

    from pipeline.heads.base import Rows
    from pipeline.runtime.progress import progress
    from pipeline.runtime.signals import StopRequest
    from pipeline.storage.embeddings.reader import OK, feature_blocks
    from pipeline.storage.predictions.csv_table import HeadOutput

    blocks: list[dict[str, HeadOutput]] = []
    start = 0
    with StopRequest() as stop, progress(len(content.status), unit="tile", label="predict") as bar:
        for features in feature_blocks(path, content.status):
            part = slice(start, start + len(features))
            ok = content.status[part] == OK
            if ok.any():
                given = features[ok].astype(saved.dtype).astype(np.float32)  # as those the heads were fitted on
                blocks.append(saved.predict(Rows(given, content.logits[part][ok], np.full(int(ok.sum()), -1))))
            start += len(features)
            bar.update(len(features))
            if stop.signum:
                raise stop.interrupted("no map was written")
    return {
        head: HeadOutput(*(np.concatenate([block[head][i] for block in blocks]) for i in range(2)))
        for head in saved.heads
    }
