"""Networks of torchvision and timm without their last layer, and the preprocessing of their weights."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import models

from pipeline.errors import BadArtifact, UsageError
from pipeline.network.batches import normalise
from pipeline.network.encoders.frozen import FrozenEncoder, measure
from pipeline.network.encoders.libraries import Architecture, build, parse_encoder, preprocess_of_config


@pytest.mark.parametrize(
    ("name", "width", "head"),
    [
        ("resnet18", 512, "fc."),
        ("squeezenet1_0", None, ""),
        ("shufflenet_v2_x0_5", 1024, "fc."),
        ("mobilenet_v3_small", 1024, "classifier.3."),
        ("vit_b_16", 768, "heads.head."),
    ],
)
def test_the_last_linear_layer_is_removed(name: str, width: int | None, head: str) -> None:
    architecture = parse_encoder(f"torchvision:{name}")
    if width is None:
        with pytest.raises(UsageError):
            build(architecture)
        return
    with torch.device("meta"):
        built = build(architecture)
    assert (built.encoder.width, built.head) == (width, (head,))


def test_features_are_what_the_last_layer_gets() -> None:
    whole = models.shufflenet_v2_x0_5().eval()
    built = build(Architecture("torchvision", "shufflenet_v2_x0_5"))
    state = {name: value for name, value in whole.state_dict().items() if not name.startswith(built.head)}
    built.encoder.body.load_state_dict(state)
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(whole.fc(built.encoder(images)), whole(images))
    assert measure(built.encoder, 64) > 1e6


@pytest.mark.parametrize("name", ["resnet18", "convnext_tiny", "swin_t"])  # bilinear, 236 px, bicubic
def test_tiles_are_prepared_as_torchvision_does(name: str) -> None:
    with torch.device("meta"):
        preprocess = build(Architecture("torchvision", name)).preprocess
    pixels = np.random.default_rng(0).integers(0, 256, (150, 150, 3), dtype=np.uint8)
    expected = models.get_model_weights(name).DEFAULT.transforms()(Image.fromarray(pixels))
    found = torch.from_numpy(preprocess.apply(pixels)).permute(2, 0, 1)[None]
    found = normalise(found, mean=preprocess.mean, std=preprocess.std)[0]
    assert found.shape == expected.shape == (3, preprocess.input_px, preprocess.input_px)
    assert float((found - expected).abs().max()) < 1e-5


@pytest.mark.parametrize(
    "name", ["resnet18", "torchvision:", "torchvision:fcn_resnet50", "keras:vgg16", "torchvision:no"]
)
def test_unknown_encoders_are_refused(name: str) -> None:
    with pytest.raises(UsageError):
        build(parse_encoder(name))


@pytest.mark.parametrize(
    "changed",
    [
        {"input_size": None},
        {"input_size": [3, 4096, 4096]},
        {"crop_pct": 1.5},
        {"std": [0, 1, 1]},
        {"mean": [1, 2]},
        {"interpolation": "lanczos"},
        {"mean": "no"},
    ],
)
def test_impossible_preprocessing_is_refused(changed: dict[str, object]) -> None:
    config = {"input_size": [3, 32, 32], "crop_pct": 1, "mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic"}
    assert preprocess_of_config(config).crop is None
    with pytest.raises(BadArtifact):
        preprocess_of_config(config | changed)


def test_networks_of_timm() -> None:
    timm = pytest.importorskip("timm")
    built = build(Architecture("timm", "test_vit", {"img_size": 32}))
    assert isinstance(built.encoder, FrozenEncoder)
    assert built.preprocess.interpolation == "bicubic"
    whole = timm.create_model("test_vit", img_size=32).eval()
    built.encoder.body.load_state_dict(
        {name: value for name, value in whole.state_dict().items() if not name.startswith(built.head)}
    )
    images = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        assert torch.equal(whole.head(built.encoder(images)), whole(images))
    assert measure(built.encoder, 32) > 0


@pytest.mark.parametrize(
    "arguments",
    [
        {"checkpoint_path": "a.pth"},
        {"depth": 10**9},
        {"mlp_layer": "os.system"},
        {"img_size": {"a": 1}},
        {"depth": "x"},
    ],
)
def test_arguments_of_timm_that_could_do_more_are_refused(arguments: dict[str, object]) -> None:
    pytest.importorskip("timm")
    with pytest.raises(BadArtifact):
        build(Architecture("timm", "test_vit", arguments))
