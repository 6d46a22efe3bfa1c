"""Write and read model.safetensors and model.json: a trained network and its description. Loading runs no code (P3)."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torchvision.models.resnet import ResNet

from pipeline.errors import BadArtifact
from pipeline.network.resnet import ARCHITECTURES, build_network
from pipeline.storage import atomic, records
from pipeline.tiles.stain_normalisation import Stain, stain_of

SCHEMA = "model/1.0"

MOST_CLASSES = 32_767
"""Class codes are int16 in embeddings.h5."""

MOST_PX = 1024
"""Largest side of a network's input in px, as in `train`."""


@dataclasses.dataclass(frozen=True)
class Preprocess:
    """Describe how a decoded tile becomes the network's input; stored in model.json and embeddings.h5."""

    size: int
    """Side in px the tile is resized to."""

    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    """Per channel, of pixels scaled to 0..1; torchvision's constants."""

    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    """Per channel, as `mean`; torchvision's constants."""

    interpolation: str = "bilinear"
    """Pillow's antialiased bilinear filter."""

    mpp: float | None = None
    """Micrometres per pixel of the network's input, if known."""

    stain: Stain | None = None
    """Target of stain normalisation; None: no normalisation."""


@dataclasses.dataclass(frozen=True)
class Model:
    """A network with its description."""

    network: ResNet
    info: Mapping[str, Any]
    """Content of model.json."""

    record: Mapping[str, Any]

    @property
    def classes(self) -> list[str]:
        """Class names in the order of the logits."""
        return list(self.info["classes"])

    @property
    def preprocess(self) -> Preprocess:
        """Description of the network's input."""
        known = [field.name for field in dataclasses.fields(Preprocess)]
        values = {name: value for name, value in self.info["preprocess"].items() if name in known}
        exact = {"mean": tuple(values["mean"]), "std": tuple(values["std"]), "stain": stain_of(values.get("stain"))}
        return Preprocess(**values | exact)


def description_path(path: Path) -> Path:
    """Return the path of the JSON description next to model.safetensors."""
    return path.with_suffix(".json")


def save_model(path: Path, state: Mapping[str, torch.Tensor], info: Mapping[str, Any]) -> None:
    """Write weights and description; the caller writes the record (its outputs include the description).

    Args:
        path: `model.safetensors`.
        state: torchvision's parameter names -> tensors.
        info: arch, classes, preprocess, recipe, metrics, seed as plain JSON.
    """
    tensors = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    atomic.require_space(path.parent, sum(value.numel() * value.element_size() for value in tensors.values()))
    with atomic.atomic(path) as temporary:
        save_file(tensors, temporary)
    atomic.write_text(description_path(path), atomic.to_json(dict(info)))


def load_model(path: Path) -> Model:
    """Load a trained network, in eval mode on the CPU.

    Raises:
        BadArtifact: missing, damaged or edited files, or weights that do not fit the architecture.
    """
    record = records.check_artifact(path, schema=SCHEMA)
    description = description_path(path)
    expected = record["outputs"].get(description.name)
    if not description.is_file() or atomic.sha256_file(description) != expected:
        raise BadArtifact(f"{description}: missing or changed since training: restore it or train again")
    info = atomic.from_json(description)
    if fault := _fault(info):
        raise BadArtifact(f"{description}: {fault}: restore it or train again")
    network = build_network(info["arch"], n_classes=len(info["classes"]), seed=0)
    types = {name: value.dtype for name, value in network.state_dict().items()}
    try:
        state = load_file(path)
        if other := [name for name, value in state.items() if value.dtype != types.get(name, value.dtype)]:
            raise RuntimeError(f"{other[0]} is {state[other[0]].dtype}, {types[other[0]]} is needed")
        network.load_state_dict(state)
    except (SafetensorError, RuntimeError, ValueError, KeyError, OSError) as error:
        raise BadArtifact(f"{path}: not the weights of {info['arch']}: {' '.join(str(error).split())[:160]}") from None
    return Model(network=network.eval(), info=info, record=record)


def _fault(info: Any) -> str:
    """Return what is missing or wrong in a description, or ""."""
    if not isinstance(info, dict) or info.get("arch") not in ARCHITECTURES:
        return f"no arch of {', '.join(ARCHITECTURES)}"
    classes = info.get("classes")
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        return "classes is not a list of names"
    if not 0 < len(classes) <= MOST_CLASSES or len(set(classes)) < len(classes):
        return f"classes is empty, names one twice, or has more than {MOST_CLASSES}"
    preprocess = info.get("preprocess")
    names = [field.name for field in dataclasses.fields(Preprocess) if field.name != "stain"]
    if not isinstance(preprocess, dict) or not set(names) <= set(preprocess):
        return f"preprocess is not an object of {', '.join(names)}"
    size, constants = preprocess["size"], [preprocess["mean"], preprocess["std"]]
    if not isinstance(size, int) or not 1 <= size <= MOST_PX:
        return f"preprocess has no size from 1 to {MOST_PX} px"
    if not all(isinstance(c, list) and len(c) == 3 and all(isinstance(v, int | float) for v in c) for c in constants):
        return "preprocess has no mean and std of three channels"
    try:
        stain_of(preprocess.get("stain"))
    except ValueError as error:
        return f"preprocess.stain is not a stain to normalise to ({error})"
    return ""
