"""Write the demo data set: synthetic tissue tiles with folders and names as in Kather 2016.

Writes `<folder>/<CLASS>/<hex>_CRC-Prim-HE-<NN>_<roi>.tif_Row_<r>_Col_<c>.tif` and `<folder>/demo.json`.
The ten sources NN differ in stain, focus and noise, and have the classes in uneven shares, so that a
random split gives better results than a grouped one, as on real slides. No pixel is real.
"""

import errno
import json
import os
import shutil
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from pipeline.errors import BadInput, DiskFull
from pipeline.runtime.progress import progress
from pipeline.tiles.corruptions import jpeg
from pipeline.tiles.synthetic import classes
from pipeline.tiles.synthetic.nuclei import paint
from pipeline.tiles.synthetic.stain import STAINS, develop
from pipeline.tiles.synthetic.texture import Field
from pipeline.tiles.synthetic.tissue import blank

GENERATOR = 2
"""Version of the generator; increase it when the same arguments give other pixels or names."""

_TISSUES = {
    "01_TUMOR": classes.tumor,
    "02_STROMA": classes.fibrous,
    "03_COMPLEX": classes.mixed,
    "04_LYMPHO": classes.lympho,
    "05_DEBRIS": classes.debris,
    "06_MUCOSA": classes.mucosa,
    "07_ADIPOSE": classes.adipose,
    "08_EMPTY": blank,
}

CLASSES = tuple(_TISSUES)
"""The class folders, in the order and spelling of Kather et al. 2016 (doi:10.1038/srep27988)."""

_SHARE = {1: 401, 2: 284, 3: 740, 4: 381, 5: 661, 6: 471, 7: 503, 8: 389, 9: 342, 10: 203}
"""Tiles of tissue per source in the real set, here of every class. There, bare slide was cut from two sources only, so
that a network trained without them cannot know it."""

_RECORD = "demo.json"


def render_tile(label: str, *, source: int, tile_px: int, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Draw one tile.

    Args:
        label: One of CLASSES.
        source: 1..10; decides stain, focus, noise, compression and the typical tissue, independently of `rng`.
        tile_px: Side in pixels; the field of view is 74 um whatever the side.
        rng: Generator for everything else.

    Returns:
        RGB picture, (tile_px, tile_px, 3) uint8.
    """
    habit = np.random.default_rng([source, CLASSES.index(label)])
    field = Field(tile_px, rng=rng, habit=habit)
    layer = _TISSUES[label](field)
    h, e = paint(field, layer.nuclei, haematoxylin=layer.haematoxylin, eosin=layer.eosin)
    picture = develop(field, haematoxylin=h, eosin=e, source=source)
    return jpeg(picture, quality=STAINS[source].quality)


def make_demo(folder: Path, *, n_tiles: int, tile_px: int, seed: int) -> None:
    """Write the demo set as uncompressed RGB TIFF; the same arguments give the same bytes.

    The set is built in a hidden folder next to `folder` and renamed when it is complete, so a killed run
    leaves nothing under the final name. A complete set with the same parameters is kept.

    Args:
        folder: Where the class folders go; its parent is created if missing.
        n_tiles: Tiles in all, spread evenly over the classes; at least 16 (two sources per class).
        tile_px: Side of a tile in pixels, at least 16.
        seed: Not negative.

    Raises:
        BadInput: A parameter is out of range, or `folder` has other content than this set.
        DiskFull: No space left; nothing has the final name.
    """
    if n_tiles < 2 * len(CLASSES) or tile_px < 16 or seed < 0:
        raise BadInput(
            f"demo set: n_tiles={n_tiles}, tile_px={tile_px}, seed={seed} is out of range: "
            f"give n_tiles >= {2 * len(CLASSES)}, tile_px >= 16, seed >= 0"
        )
    record = {"generator": GENERATOR, "n_tiles": n_tiles, "seed": seed, "tile_px": tile_px}
    folder = folder.absolute()
    if _is_made(folder, record):
        return
    building = folder.with_name(f".{folder.name}.partial-{os.getpid()}")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        for leftover in folder.parent.glob(f".{folder.name}.partial-*"):
            if not _is_alive(leftover):
                shutil.rmtree(leftover, ignore_errors=True)
        try:
            _build(building, n_tiles=n_tiles, tile_px=tile_px, seed=seed)
            (building / _RECORD).write_text(json.dumps(record, indent=1, sort_keys=True) + "\n", encoding="utf-8")
            if not _is_made(folder, record):  # another process may have finished first
                building.rename(folder)
        finally:
            shutil.rmtree(building, ignore_errors=True)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise DiskFull(f"{folder}: no space left for the demo set; free some and run again") from error
        raise BadInput(f"{folder}: the demo set cannot be written there ({error.strerror})") from error


def _is_made(folder: Path, record: dict[str, int]) -> bool:
    """Return whether `folder` already has the set of `record`; raise BadInput if it has other content."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    try:
        found = json.loads((folder / _RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(f"{folder} is in use and holds no demo set ({_RECORD}); choose another folder") from error
    if found != record:
        raise BadInput(f"{folder} holds a demo set of {found}, not of {record}; delete it or choose another folder")
    n_found = sum(1 for label in CLASSES for _ in (folder / label).glob("*.tif"))
    if n_found != record["n_tiles"]:
        raise BadInput(f"{folder}: {n_found} of {record['n_tiles']} demo tiles are there; delete the folder")
    return True


def _is_alive(building: Path) -> bool:
    """Return whether another process still builds in this temporary folder."""
    pid = building.name.rpartition("-")[2]
    if not pid.isdecimal() or int(pid) == os.getpid():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it runs under another user
        return True
    return True


def _build(folder: Path, *, n_tiles: int, tile_px: int, seed: int) -> None:
    for label in CLASSES:
        (folder / label).mkdir(parents=True)
    rng = np.random.default_rng([seed, 0])
    plan = _plan(n_tiles)
    marks = rng.choice(16**5 - 16**4, len(plan), replace=False) + 16**4  # five hex digits, each once
    with progress(len(plan), unit="tile", label="demo set") as bar:
        for index, ((label, source), mark) in enumerate(zip(plan, marks, strict=True)):
            roi, row, col = rng.integers(1, 41), *(rng.integers(0, 12, 2) * tile_px + 1)
            name = f"{mark:X}_CRC-Prim-HE-{source:02d}_{roi:03d}.tif_Row_{row}_Col_{col}.tif"
            # A stream per tile: a tile does not depend on earlier tiles.
            tile_rng = np.random.default_rng([seed, 1, index])
            tile = render_tile(label, source=source, tile_px=tile_px, rng=tile_rng)
            Image.fromarray(tile).save(folder / label / name, format="TIFF", compression=None)
            bar.update(1)


def _plan(n_tiles: int) -> list[tuple[str, int]]:
    """Return (class, source) of every tile: classes even, sources uneven as in the real set."""
    plan = []
    for k, label in enumerate(CLASSES):
        n = n_tiles // len(CLASSES) + (k < n_tiles % len(CLASSES))
        # One tile in each source first (too few tiles: another choice of sources per class), then by share.
        first = np.roll(np.array(list(_SHARE)), 3 * k)[:n]
        counts = {source: int(source in first) for source in _SHARE}
        for _ in range(n - len(first)):
            lacking = {s: n * share / sum(_SHARE.values()) - counts[s] for s, share in _SHARE.items()}
            counts[max(lacking, key=lambda s: lacking[s])] += 1
        plan += [(label, source) for source, count in counts.items() for _ in range(count)]
    return plan
