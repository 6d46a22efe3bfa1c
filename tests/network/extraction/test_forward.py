"""Rows of embeddings: torchvision's own pass, whatever the batch, the workers and the neighbours."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.models import resnet50
from torchvision.transforms.functional import normalize

from pipeline import extract
from pipeline.errors import PipelineError
from pipeline.network.engines import build_engine
from pipeline.network.extraction.forward import embed_batches
from pipeline.network.model_file import SCHEMA, Model, load_model, save_model
from pipeline.network.preprocess import Preprocess
from pipeline.network.resnet import build_network
from pipeline.network.tile_files import TileFiles
from pipeline.storage import records
from pipeline.tiles.manifest import Manifest, read_manifest


@pytest.fixture
def ground(trained_run: Path) -> tuple[Model, Manifest, TileFiles]:
    """The small trained model with its tiles."""
    model, manifest = load_model(trained_run / "model.safetensors"), read_manifest(trained_run / "manifest.csv")
    table = manifest.table
    return model, manifest, TileFiles(manifest.root, list(table["path"]), list(table["sha256"]), Preprocess(32))


def rows(
    model: Model, tiles: TileFiles, *, batch: int = 5, first: int = 0, in_flight: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Return all features and logits from row `first` on."""
    torch.set_num_threads(1)
    engine = build_engine("torch", model, device=torch.device("cpu"), precision="fp32", batch=batch)
    engine.in_flight = in_flight
    parts = list(embed_batches(engine, tiles, first=first, workers=0))
    assert [row for loaded, _, _ in parts for row in loaded.rows] == list(range(first, len(tiles)))
    return np.concatenate([f for _, f, _ in parts]), np.concatenate([z for _, _, z in parts])


def test_rows_do_not_depend_on_where_a_run_starts(ground: tuple[Model, Manifest, TileFiles]) -> None:
    model, _, tiles = ground
    features, logits = rows(model, tiles)
    assert features.shape == (32, 512)
    assert logits.shape == (32, 2)
    later = rows(model, tiles, first=15)
    assert np.array_equal(later[0], features[15:])
    assert np.array_equal(later[1], logits[15:])


@pytest.mark.parametrize("batch", [1, 16])
def test_rows_do_not_depend_on_the_batch_beyond_rounding(ground: tuple[Model, Manifest, TileFiles], batch: int) -> None:
    model, _, tiles = ground
    np.testing.assert_allclose(rows(model, tiles, batch=batch)[0], rows(model, tiles)[0], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("in_flight", [1, 3])
def test_a_bad_tile_is_zero_and_changes_no_other_row(ground: tuple[Model, Manifest, TileFiles], in_flight: int) -> None:
    """P4; an engine that takes batches ahead gives them back to their own tiles."""
    model, _, tiles = ground
    before, _ = rows(model, tiles)
    tiles.sha256[7] = ""
    after, logits = rows(model, tiles, in_flight=in_flight)
    assert not after[7].any()
    assert not logits[7].any()
    others = np.arange(32) != 7
    assert np.array_equal(after[others], before[others])


@pytest.mark.fault("an embedding that is not finite")
def test_a_feature_that_is_not_finite_names_the_tile(ground: tuple[Model, Manifest, TileFiles]) -> None:
    model, manifest, tiles = ground
    with torch.no_grad():
        model.network.layer4[0].bn2.bias[3] = float("inf")
    with pytest.raises(PipelineError, match="its embedding is not finite") as caught:
        rows(model, tiles)
    assert manifest.table["path"][0] in str(caught.value)
    assert "\n" not in str(caught.value)


def test_rows_are_those_of_torchvisions_resnet50(prepared_run: Path) -> None:
    """Row i of embeddings.h5 is torchvision's own pass, with the weights of model.safetensors, on tile i."""
    from safetensors.torch import load_file

    torch.set_num_threads(1)
    path = prepared_run / "model.safetensors"
    manifest = read_manifest(prepared_run / "manifest.csv")
    network = build_network("resnet50", n_classes=2, seed=0)
    with torch.no_grad():  # running statistics of real activations, as after training
        network(torch.randn(8, 3, 64, 64))
        network(torch.randn(8, 3, 64, 64))
    preprocess = {
        "size": 64,
        "mean": [0.5, 0.4, 0.6],
        "std": [0.2, 0.3, 0.25],
        "interpolation": "bilinear",
        "mpp": None,
    }
    save_model(path, network.state_dict(), {"arch": "resnet50", "classes": manifest.classes, "preprocess": preprocess})
    records.write_record(
        records.Artifact(path, SCHEMA, "train", inputs=[manifest.path]), outputs=[path.with_suffix(".json")]
    )

    theirs = resnet50(num_classes=2)
    theirs.load_state_dict(load_file(path))
    theirs.eval()
    pooled: list[torch.Tensor] = []
    theirs.avgpool.register_forward_hook(lambda module, inputs, output: pooled.append(output.flatten(1)))
    chosen = [0, 5, 31]
    pixels = [
        np.asarray(
            Image.open(manifest.root / manifest.table["path"][row]).convert("RGB").resize((64, 64), Image.BILINEAR)
        )
        for row in chosen
    ]
    x = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float() / 255
    with torch.inference_mode():
        scores = theirs(normalize(x, preprocess["mean"], preprocess["std"])).numpy()
    expected = pooled[0].numpy()

    common = ["--run", str(prepared_run), "--device", "cpu", "--threads", "1", "--workers", "0"]
    for precision, tolerance in (("fp32", 1e-4), ("bf16", 0.05)):
        out = prepared_run / f"{precision}.h5"
        # nothing was learnt here: bf16 blurs the little that tells such tiles apart
        assert extract.main([*common, "--embed-precision", precision, "--out", str(out), "--force"]) == 0
        with h5py.File(out) as file:
            features, logits = file["features"][chosen], file["logits"][chosen]
        assert features.shape == (3, 2048)
        for got, want in ((features, expected), (logits, scores)):
            error = np.linalg.norm(got - want, axis=1) / np.linalg.norm(want, axis=1)
            assert (error < tolerance).all(), (precision, error)
