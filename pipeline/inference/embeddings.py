"""Predict the rows of an embeddings file with saved heads."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from pipeline.heads.saved import SavedHeads
    from pipeline.storage.embeddings.reader import Embeddings
    from pipeline.storage.predictions.csv_table import HeadOutput


def predict_rows(saved: "SavedHeads", content: "Embeddings", path: Path) -> "dict[str, HeadOutput]":
    """Return each head's output for the readable rows of an embeddings file, which is read in blocks.

    Raises:
        Interrupted: SIGINT or SIGTERM; nothing is kept.
    """
    import numpy as np

    from pipeline.heads.base import Rows
    from pipeline.runtime.progress import progress
    from pipeline.runtime.signals import StopRequest
    from pipeline.storage.embeddings.reader import OK, feature_blocks

    blocks: list[dict[str, HeadOutput]] = []
    start = 0
    centre = _centre_of_slide(saved, content, path)
    with StopRequest() as stop, progress(len(content.status), unit="tile", label="predict") as bar:
        for block in feature_blocks(path, content.status):
            part = slice(start, start + len(block))
            ok = content.status[part] == OK
            if ok.any():
                features = block[ok].astype(saved.dtype).astype(np.float32)  # the precision that heads were fitted on
                unknown = np.full(int(ok.sum()), -1)
                rows = Rows(features, content.logits[part][ok], unknown, n_classes=len(saved.classes))
                blocks.append(saved.predict(rows, centre))
            start += len(block)
            bar.update(len(block))
            if stop.signum:
                raise stop.interrupted("no map was written")
    return joined(blocks, saved)


def _centre_of_slide(saved: "SavedHeads", content: "Embeddings", path: Path) -> "np.ndarray | None":
    """Return the shrunk mean (D,) of the slide's embeddings, where features are relative to it; its rows are read once.

    The slide is the group: all its tiles count.
    """
    import numpy as np

    from pipeline.storage.embeddings.reader import OK, feature_blocks
    from pipeline.storage.embeddings.relative_features import sums_of

    if saved.mean is None:
        return None
    blocks = (block.astype(saved.dtype) for block in feature_blocks(path, content.status))
    sums = sums_of(blocks, np.zeros(len(content.status), int), 1)  # rows without a tile are zeros
    found = saved.centre_of(sums, np.array([(content.status == OK).sum()]))
    return None if found is None else found[0]


def joined(blocks: "list[dict[str, HeadOutput]]", saved: "SavedHeads") -> "dict[str, HeadOutput]":
    """Return each head's output for all blocks of rows."""
    import numpy as np

    from pipeline.storage.predictions.csv_table import HeadOutput

    return {
        head: HeadOutput(
            np.concatenate([block[head].predicted for block in blocks]),
            np.concatenate([block[head].p for block in blocks]),
            blocks[0][head].offsets,
        )
        for head in saved.names
    }
