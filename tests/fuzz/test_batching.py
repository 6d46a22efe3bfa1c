"""What a tile's row is does not depend on the order of the tiles, the batch, the workers or the memory (P6)."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.network.engines import build_engine
from pipeline.network.extraction.forward import embed_batches
from pipeline.network.model_file import Model
from pipeline.network.preprocess import Preprocess
from pipeline.network.resnet import build_network
from pipeline.network.tile_files import TileFiles
from pipeline.tiles.decoding import pixel_hash

N, PX = 11, 32
UNREADABLE = 4


@pytest.fixture(scope="module")
def model() -> Model:
    """A resnet10 as it is born."""
    info = {"arch": "resnet10", "classes": ["a", "b"], "preprocess": {"size": PX, "mean": [0.5] * 3, "std": [0.2] * 3}}
    return Model(network=build_network("resnet10", n_classes=2, seed=0).eval(), info=info, record={})


@pytest.fixture(scope="module")
def tiles(tmp_path_factory: pytest.TempPathFactory) -> TileFiles:
    """Eleven tiles of noise, one of which cannot be read."""
    root, rng = tmp_path_factory.mktemp("tiles"), np.random.default_rng(0)
    names, hashes = [], []
    for i in range(N):
        pixels = rng.integers(0, 20 * (i + 2), (PX, PX, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / f"{i}.png")
        names.append(f"{i}.png")
        hashes.append(pixel_hash(pixels).hex())
    (root / f"{UNREADABLE}.png").write_text("no image")
    return TileFiles(root, names, hashes, Preprocess(PX))


def rows(model: Model, tiles: TileFiles, *, batch: int, workers: int) -> dict[str, np.ndarray]:
    """Return path -> features and logits (D + K,)."""
    torch.set_num_threads(1)
    engine = build_engine("torch", model, device=torch.device("cpu"), precision="fp32", batch=batch)
    found = embed_batches(engine, tiles, first=0, workers=workers)
    return {
        tiles.paths[row]: np.concatenate([features[i], logits[i]])
        for loaded, features, logits in found
        for i, row in enumerate(loaded.rows)
    }


@pytest.mark.fault("another order, batch, number of workers")
@settings(max_examples=12, deadline=None, derandomize=True)
@given(
    order=st.permutations(range(N)),
    batch=st.integers(1, 16),
    workers=st.sampled_from([0, 0, 0, 1]),
)
def test_a_row_is_the_tiles_own(model: Model, tiles: TileFiles, order: list[int], batch: int, workers: int) -> None:
    expected = rows(model, tiles, batch=4, workers=0)
    shuffled = TileFiles(tiles.root, [tiles.paths[i] for i in order], [tiles.sha256[i] for i in order], Preprocess(PX))
    found = rows(model, shuffled, batch=batch, workers=workers)
    assert list(found) == shuffled.paths
    for name, row in found.items():
        np.testing.assert_allclose(row, expected[name], rtol=1e-4, atol=1e-4)
    assert not found[f"{UNREADABLE}.png"].any()
    assert np.ptp(np.stack(list(found.values())), axis=0).max() > 0.01, "the tiles do not tell rows apart"
