"""Write embeddings in the formats of other programs: CLAM, TRIDENT, anndata, CSV. Rows without a tile are left out.

Layouts: CLAM 53e2409 (dataset_modules/dataset_generic.py), TRIDENT a91fa84 (trident/IO.py), anndata's on-disk format
0.1.0.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd

from pipeline.errors import BadInput
from pipeline.names import SPLITS
from pipeline.runtime.extras import import_library
from pipeline.storage import atomic
from pipeline.storage.embeddings.reader import OK, Embeddings, feature_blocks
from pipeline.storage.embeddings.slide_info import attributes, trident_attributes
from pipeline.storage.hdf5 import created, write_attributes

SCHEMA = "export/1.0"

ENCODER = "histoheads"
"""Name of the network in TRIDENT's files."""


def target_files(name: str, path: Path, out: Path) -> list[Path]:
    """Return the files of a format; the first one gets the record.

    Args:
        name: name of the format.
        path: the embeddings file, named after the slide.
        out: `--out`, a folder or a file.
    """
    if name == "clam":
        return [out / "h5_files" / f"{path.stem}.h5", out / "pt_files" / f"{path.stem}.pt"]
    return [out / f"{path.stem}.h5" if name == "trident" else out]


def tile_table(content: Embeddings) -> pd.DataFrame:
    """Return tile_id, path, group, label, split, and for a slide x and y, of the M rows with a tile."""
    names = np.array([*content.classes, ""], dtype=object)  # the last for -1
    splits = np.array([SPLITS[code] if code < len(SPLITS) else "" for code in range(256)], dtype=object)
    table = pd.DataFrame({"tile_id": content.tile_id, "path": content.path, "group": content.group})
    table["label"], table["split"] = names[content.label], splits[content.split]
    if content.coords is not None:
        table["x"], table["y"] = content.coords.T
    return table[content.status == OK].reset_index(drop=True)


def _used_blocks(path: Path, content: Embeddings) -> Iterator[np.ndarray]:
    """Yield the features of the rows with a tile, block by block."""
    start = 0
    for block in feature_blocks(path, content.status):
        used = content.status[start : start + len(block)] == OK
        start += len(block)
        yield block[used]


def _write_features(file: h5py.File, path: Path, content: Embeddings) -> h5py.Dataset:
    """Write /features, (M, D) float32, block by block."""
    n = int((content.status == OK).sum())
    features: h5py.Dataset | None = None
    start = 0
    for block in _used_blocks(path, content):
        if features is None:
            features = file.create_dataset("features", (n, block.shape[1]), "float32")
        features[start : start + len(block)] = block
        start += len(block)
    if features is None:
        raise BadInput(f"{path}: has no rows")
    return features


def to_clam(path: Path, content: Embeddings, out: Path) -> list[Path]:
    """Write h5_files/<slide>.h5 and pt_files/<slide>.pt, the layout of CLAM's data_dir.

    CLAM trains on the .pt, a tensor (M, D) that `torch.load` reads with `weights_only=True`; the .h5 also has the
    tiles' coordinates, (M, 2) int32.

    Args:
        path: the embeddings file, named after the slide.
        content: its content, without features.
        out: the folder.
    """
    import torch

    _refuse_tiles(path, content, "clam")
    assert content.coords is not None, "else refused"  # noqa: S101
    target, tensor = target_files("clam", path, out)
    with atomic.atomic(target) as temporary, created(temporary) as file:
        features = _write_features(file, path, content)[()]
        file["coords"] = content.coords[content.status == OK]
    with atomic.atomic(tensor) as temporary:
        torch.save(torch.from_numpy(features), temporary)
    return [target, tensor]


def to_trident(path: Path, content: Embeddings, out: Path) -> list[Path]:
    """Write <slide>.h5 as TRIDENT writes features: `features` (M, D) float32, `coords` (M, 2) int64, their attributes.

    Args:
        path: the embeddings file, named after the slide.
        content: its content, without features.
        out: the folder.
    """
    _refuse_tiles(path, content, "trident")
    assert content.coords is not None, "else refused"  # noqa: S101
    assert content.slide is not None, "else refused"  # noqa: S101
    (target,) = target_files("trident", path, out)
    with atomic.atomic(target) as temporary, created(temporary) as file:
        features = _write_features(file, path, content)
        write_attributes(features, {"name": path.stem, "savetodir": "", "encoder": ENCODER})
        coords = file.create_dataset("coords", data=content.coords[content.status == OK].astype(np.int64))
        theirs = trident_attributes(content.slide, name=path.stem) | {"savetodir": ""}
        write_attributes(coords, attributes(content.slide) | theirs)
    return [target]


def _refuse_tiles(path: Path, content: Embeddings, name: str) -> None:
    if content.coords is None or content.slide is None:
        raise BadInput(
            f"{path}: holds no /coords: {name} files need the coordinates of a slide's tiles: give the embeddings of a "
            "slide (extract --slide), or --to anndata or csv"
        )


def to_anndata(path: Path, content: Embeddings, out: Path) -> list[Path]:
    """Write an .h5ad: X the features, obs the tiles, obsm["logits"], obsm["spatial"] the tiles' coordinates on a slide.

    `uns` has the attributes of the embeddings, lists and objects as JSON.

    Args:
        path: the embeddings file.
        content: its content, without features.
        out: the file.

    Raises:
        PipelineError: anndata is not installed.
    """
    anndata = import_library("anndata", extra="anndata", needed_for="--to anndata")
    used = content.status == OK
    table = tile_table(content).set_index("tile_id")
    features = np.concatenate(list(_used_blocks(path, content)))
    variables = pd.DataFrame(index=[f"f{i}" for i in range(features.shape[1])])
    found = anndata.AnnData(X=features, obs=table.astype({"label": "category", "split": "category"}), var=variables)
    if content.logits.shape[1]:
        found.obsm["logits"] = content.logits[used]
    if content.coords is not None:
        found.obsm["spatial"] = content.coords[used]
    found.uns["histoheads"] = {name: _plain(value) for name, value in content.attrs.items()}
    with atomic.atomic(out) as temporary:
        found.write_h5ad(temporary)
    return [out]


def _plain(value: Any) -> Any:
    return json.dumps(value, sort_keys=True, ensure_ascii=False) if isinstance(value, list | dict) else value


def to_csv(path: Path, content: Embeddings, out: Path) -> list[Path]:
    """Write a CSV file: the columns of `tile_table`, then f0, f1, ... with nine digits, which float32 needs.

    Args:
        path: the embeddings file.
        content: its content, without features.
        out: the file.
    """
    table = tile_table(content)
    start = 0
    with atomic.atomic(out) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        for block in _used_blocks(path, content):
            columns = [f"f{i}" for i in range(block.shape[1])]
            part = table.iloc[start : start + len(block)].reset_index(drop=True)
            lines = pd.concat([part, pd.DataFrame(block, columns=columns)], axis=1)
            lines.to_csv(file, index=False, header=start == 0, float_format="%.9g", lineterminator="\n")
            start += len(block)
    return [out]


FORMATS = {"clam": to_clam, "trident": to_trident, "anndata": to_anndata, "csv": to_csv}
"""Name -> function that writes the format: (path and content of the embeddings, folder or file to write)."""
