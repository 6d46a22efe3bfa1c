"""Write and load model.safetensors with model.json: a trained network or a frozen encoder. No code is run (P3)."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from pipeline.errors import BadArtifact
from pipeline.names import TRAINED, RunFile
from pipeline.network.encoders.frozen import FrozenEncoder, Network
from pipeline.network.encoders.libraries import rebuilt
from pipeline.network.preprocess import Preprocess, preprocess_fault, preprocess_of
from pipeline.network.resnet import ARCHITECTURES, empty_network
from pipeline.storage import atomic, records

SCHEMA = records.SCHEMAS[RunFile.MODEL]

MOST_CLASSES = 32_767
"""Class codes are int16 in embeddings.h5."""


@dataclasses.dataclass(frozen=True)
class Model:
    """A network with its description."""

    network: Network
    info: Mapping[str, Any]
    """Content of model.json."""

    record: Mapping[str, Any]

    @property
    def classes(self) -> list[str]:
        """Class names in the order of the logits."""
        return list(self.info["classes"])

    @property
    def encoder(self) -> str:
        """`trained`, or the library and name of a frozen encoder."""
        return str(self.info["arch"]) if isinstance(self.network, FrozenEncoder) else TRAINED

    @property
    def width(self) -> int:
        """Width of an embedding, D."""
        return self.network.width if isinstance(self.network, FrozenEncoder) else self.network.fc.in_features

    @property
    def n_logits(self) -> int:
        """Number of logits of a tile: that of the classes, 0 for a frozen encoder, which has no softmax layer."""
        return 0 if isinstance(self.network, FrozenEncoder) else len(self.classes)

    @property
    def preprocess(self) -> Preprocess:
        """What the network's input is."""
        return preprocess_of(self.info["preprocess"])


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
    """Load the network of a run, in eval mode on the CPU.

    Raises:
        BadArtifact: missing, damaged or edited files, or weights that do not fit the architecture.
    """
    record = records.check_artifact(path, schema=SCHEMA)
    description, info = description_path(path), read_description(path, record)
    network: Network
    body: torch.nn.Module
    if info["arch"] in ARCHITECTURES:
        network = body = empty_network(info["arch"], len(info["classes"]))
    else:
        try:
            network = rebuilt(info)
        except BadArtifact as error:
            raise BadArtifact(f"{description}: {error}: restore it or run extract --restart") from None
        body = network.body
    types = {name: value.dtype for name, value in body.state_dict().items()}
    try:
        state = load_file(path)
        if other := [name for name, value in state.items() if value.dtype != types.get(name, value.dtype)]:
            raise RuntimeError(f"{other[0]} is {state[other[0]].dtype}, {types[other[0]]} is needed")
        if network is body:  # the tensors of load_file are parts of the mapped file, at any address
            body.load_state_dict({name: value.clone() for name, value in state.items()}, assign=True)
        else:
            body.load_state_dict(state)
    except (SafetensorError, RuntimeError, ValueError, KeyError, OSError) as error:
        raise BadArtifact(f"{path}: not the weights of {info['arch']}: {' '.join(str(error).split())[:160]}") from None
    return Model(network=network.eval(), info=info, record=record)


def read_description(path: Path, record: records.Record) -> dict[str, Any]:
    """Return the content of model.json after checking it against the record of model.safetensors.

    Args:
        path: `model.safetensors`, which may be missing.
        record: its record.

    Raises:
        BadArtifact: missing, damaged, edited, or not what the schema states.
    """
    description = description_path(path)
    if not description.is_file() or atomic.sha256_file(description) != record["outputs"].get(description.name):
        raise BadArtifact(f"{description}: missing or changed since training: restore it or train again")
    info: dict[str, Any] = atomic.from_json(description)
    if fault := _fault(info):
        raise BadArtifact(f"{description}: {fault}: restore it or train again")
    return info


def _fault(info: Any) -> str:
    """Return what is missing or wrong in a description, or ""."""
    if not isinstance(info, dict) or not (info.get("arch") in ARCHITECTURES or "encoder" in info):
        return f"no arch of {', '.join(ARCHITECTURES)}, and no encoder"
    classes = info.get("classes")
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        return "classes is not a list of names"
    if not 0 < len(classes) <= MOST_CLASSES or len(set(classes)) < len(classes):
        return f"classes is empty, names one twice, or has more than {MOST_CLASSES}"
    return preprocess_fault(info.get("preprocess"))
