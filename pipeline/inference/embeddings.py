"""Predict the rows of an embeddings file with saved heads."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from pipeline.inference.saved_heads import SavedHeads
    from pipeline.storage.embeddings.reader import Embeddings
    from pipeline.storage.predictions.csv_table import HeadOutput


def predict_rows(
    saved: "SavedHeads", content: "Embeddings", path: Path, described: "Mapping[str, np.ndarray]"
) -> "dict[str, HeadOutput]":
    """Return each head's output for the M readable rows of an embeddings file, which is read in blocks.

    Args:
        saved: the heads.
        content: the file's content, without features.
        path: the file.
        described: feature set -> (M, D) of colours and texture; empty: no head takes them.

    Raises:
        Interrupted: SIGINT or SIGTERM; nothing is kept.
    """
    import numpy as np

    from pipeline.heads.rows import EMBEDDINGS
    from pipeline.runtime.progress import progress
    from pipeline.runtime.signals import StopRequest
    from pipeline.storage.embeddings.reader import OK, feature_blocks

    blocks: list[dict[str, HeadOutput]] = []
    start = done = 0
    centre = _centre_of_slide(saved, content, path, described)
    with StopRequest() as stop, progress(len(content.status), unit="tile", label="predict") as bar:
        for block in feature_blocks(path, content.status):
            part = slice(start, start + len(block))
            ok = content.status[part] == OK
            if ok.any():
                own = slice(done, done + int(ok.sum()))
                features = {name: matrix[own] for name, matrix in described.items()}
                # the precision that heads were fitted on
                features[EMBEDDINGS] = block[ok].astype(saved.dtype).astype(np.float32)
                blocks.append(saved.predict(features, content.logits[part][ok], centre))
                done = own.stop
            start += len(block)
            bar.update(len(block))
            if stop.signum:
                raise stop.interrupted("no map was written")
    return concatenated(blocks, saved)


def _centre_of_slide(
    saved: "SavedHeads", content: "Embeddings", path: Path, described: "Mapping[str, np.ndarray]"
) -> "dict[str, np.ndarray]":
    """Return feature set -> the slide's shrunk mean (D,), where features are relative to it; its rows are read once.

    The slide is the group: all its tiles count.
    """
    import numpy as np

    from pipeline.heads.rows import EMBEDDINGS
    from pipeline.storage.embeddings.reader import OK, feature_blocks
    from pipeline.storage.embeddings.relative_features import sums_of

    found = {}
    n = np.array([(content.status == OK).sum()])
    for name in saved.feature_sets & saved.means.keys():
        if name == EMBEDDINGS:  # rows without a tile are zeros
            blocks = (block.astype(saved.dtype) for block in feature_blocks(path, content.status))
            sums = sums_of(blocks, np.zeros(len(content.status), int), 1)
        else:
            sums = sums_of([described[name]], np.zeros(n[0], int), 1)
        found[name] = saved.centre_of(name, sums, n)[0]
    return found


def concatenated(blocks: "list[dict[str, HeadOutput]]", saved: "SavedHeads") -> "dict[str, HeadOutput]":
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
