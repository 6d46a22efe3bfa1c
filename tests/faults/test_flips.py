"""One flipped bit anywhere in any file of a run is found before anything is made of it (P1, P8)."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import BadArtifact
from pipeline.network.preprocess import Preprocess
from pipeline.network.tile_files import TileFiles
from pipeline.storage import freshness, records
from pipeline.tiles.decoding import decode_tile, pixel_hash

from .commands import Commands
from .conftest import WORDS, Finished, temporaries

pytestmark = pytest.mark.slow

FLIPS = 200

FUSED = ("heads/fused_svm.skops", "heads/fused_xgboost.ubj")
OF_OTHERS = ("predictions-random.csv", "compare.csv", "heads/logistic.skops", *FUSED)
"""Artefacts of a plan, of several runs, of a frozen encoder."""

ARTIFACTS = [(name, schema) for name, schema, _ in records.ARTIFACTS if name not in OF_OTHERS]
"""Those of a single run whose network was trained."""


def draw() -> random.Random:
    """Return a source of places, whose seed is printed."""
    seed = random.SystemRandom().getrandbits(32)
    print(f"places drawn from seed {seed}")
    return random.Random(seed)


def flip(path: Path, places: random.Random, content: bytes) -> str:
    """Write the content with one bit flipped under a new file of that name; return where it was."""
    at, bit = places.randrange(len(content)), places.randrange(8)
    changed = bytearray(content)
    changed[at] ^= 1 << bit
    path.unlink()  # it may be linked to the original
    path.write_bytes(changed)
    return f"{path.name}: bit {bit} of byte {at} of {len(content)}"


def is_found(run: Path, name: str, schema: str) -> bool:
    """Tell whether a reader refuses an artefact, or `verify` one of its companions."""
    try:
        record = records.check_artifact(run / name, schema=schema)
    except BadArtifact as error:
        return "\n" not in str(error)
    return bool(freshness.damaged_outputs(run / name, record))


def tell(record_property: Any, tries: int, missed: list[str]) -> None:
    """Leave the counts for the ledger; fail if a flip was missed."""
    record_property("tries", tries)
    record_property("survived", tries - len(missed))
    assert not missed, "\n".join(missed)


@pytest.mark.fault("one flipped bit in any file of a run")
@pytest.mark.parametrize(("name", "schema"), ARTIFACTS)
def test_p1_a_flipped_bit_in_an_artefact(
    finished: Finished, tmp_path: Path, record_property: Any, name: str, schema: str
) -> None:
    run, places = finished.copy(tmp_path, after="report"), draw()
    assert not is_found(run, name, schema)
    content = (run / name).read_bytes()
    missed = [
        where for _ in range(FLIPS) if (where := flip(run / name, places, content)) and not is_found(run, name, schema)
    ]
    tell(record_property, FLIPS, missed)


@pytest.mark.fault("one flipped bit in any file of a run")
@pytest.mark.parametrize("kind", ["record", "companion"])
def test_p8_a_flipped_bit_beside_an_artefact(
    finished: Finished, tmp_path: Path, record_property: Any, kind: str
) -> None:
    """In its record, or in a table, a description or a figure that belongs to it."""
    run, places = finished.copy(tmp_path, after="report"), draw()
    beside = []
    for name, schema in ARTIFACTS:
        outputs = records.read_record(run / name)["outputs"]
        own = [(run / name).parent / output for output in outputs if (run / name).parent / output != run / name]
        beside += [(name, schema, path) for path in ([records.record_path(run / name)] if kind == "record" else own)]
    missed = []
    for i in range(FLIPS):
        name, schema, path = beside[i % len(beside)]
        content = path.read_bytes()
        where = flip(path, places, content)
        missed += [where] * (not is_found(run, name, schema))
        path.write_bytes(content)
    tell(record_property, FLIPS, missed)


@pytest.mark.fault("one flipped bit in any file of a run")
@pytest.mark.parametrize(
    ("name", "stage"),
    [
        ("manifest.csv", "train"),
        ("model.safetensors", "extract"),
        ("model.json", "extract"),
        ("embeddings.h5", "fit_heads"),
        ("baselines.h5", "fit_heads"),
        ("heads/svm.skops", "robustness"),
        ("heads/xgboost.ubj", "robustness"),
        ("predictions.csv", "report"),
    ],
)
def test_p1_the_next_command_refuses_it_in_one_line(
    commands: Commands, finished: Finished, tmp_path: Path, record_property: Any, name: str, stage: str
) -> None:
    places, faults = draw(), []
    for i in range(3):
        run = finished.copy(tmp_path / str(i), before=stage)
        where = flip(run / name, places, (run / name).read_bytes())
        ended = commands.run(stage, WORDS[stage](run))
        if ended.code != 1 or Path(name).name not in ended.error or temporaries(run):
            faults.append(f"{where}: code {ended.code}, {ended.said}")
        if made := [other for other in finished.torn(run) if other != name]:
            faults.append(f"{where}: {made} made of it")
    record_property("tries", 3)
    assert not faults, "\n".join(faults)


@pytest.mark.fault("tile that changed after the manifest was made")
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WebP", "TIFF"])
def test_p4_a_flipped_bit_in_a_tile_is_found_or_changes_no_pixel(
    tmp_path: Path, record_property: Any, kind: str
) -> None:
    """Most flips in a JPEG or WebP decode to another picture without a word: the manifest's hash finds them."""
    path, places = tmp_path / f"tile.{kind.lower()}", draw()
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, kind)
    right = decode_tile(path)
    tiles = TileFiles(tmp_path, [path.name], [pixel_hash(right).hex()], Preprocess(32))
    content = path.read_bytes()
    missed = []
    for _ in range(FLIPS):
        where = flip(path, places, content)
        _, found, _, problem = tiles[0]
        if (not problem and not np.array_equal(found, right)) or (problem and found.any()):
            missed.append(where)
    tell(record_property, FLIPS, missed)
