"""Build networks of torchvision and timm without their last layer, and find the preprocessing of their weights."""

import dataclasses
import importlib
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pipeline.errors import BadArtifact, BadInput, UsageError
from pipeline.network.encoders.frozen import FrozenEncoder
from pipeline.network.preprocess import MOST_PX, Preprocess
from pipeline.network.pretrained import published_file
from pipeline.runtime.extras import import_library
from pipeline.tiles.decoding import INTERPOLATIONS

HEADS = ("fc", "classifier", "heads", "head")
"""torchvision's names of the part that holds the last layer."""

ARGUMENTS = (
    *("img_size", "patch_size", "embed_dim", "depth", "num_heads", "mlp_ratio", "init_values", "reg_tokens"),
    *("class_token", "no_embed_class", "global_pool", "dynamic_img_size", "qkv_bias", "pre_norm", "final_norm"),
    *("fc_norm", "act_layer", "mlp_layer"),
)
"""Arguments of timm's networks that a configuration may set; others could read files."""

MLP_LAYERS = ("Mlp", "GluMlp", "SwiGLU", "SwiGLUPacked")
"""timm's layers that `mlp_layer` may name."""

MOST = 20_000
"""Largest number in an argument of a network."""


@dataclasses.dataclass(frozen=True)
class Architecture:
    """A network of a library without its last layer."""

    library: str
    """torchvision or timm."""

    name: str
    arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Arguments of timm's constructor, from `ARGUMENTS`."""

    def __str__(self) -> str:
        return f"{self.library}:{self.name}"


@dataclasses.dataclass(frozen=True)
class Built:
    """A network with random weights, and what its library knows of its published weights."""

    encoder: FrozenEncoder
    head: tuple[str, ...]
    """Beginnings of the names of the last layer's weights, which the encoder does not have."""

    preprocess: Preprocess
    licence: str | None
    weights: str
    """Name of the published weights; "" if there are none."""

    trained_on: str | None
    """Images of the published weights, if known."""

    fetch: Callable[[], Path]
    """Return the file of the published weights; it may be downloaded."""


def parse_encoder(name: str) -> Architecture:
    """Return the architecture that `--encoder` names.

    Raises:
        UsageError: no known library, or no network of it.
    """
    library, _, network = name.partition(":")
    if library not in ("torchvision", "timm") or not network:
        raise UsageError(f"--encoder {name}: give trained, torchvision:<network> or timm:<network>")
    return Architecture(library, network)


def build(architecture: Architecture) -> Built:
    """Return the network with random weights, in eval mode on the CPU.

    Raises:
        UsageError: the library has no such network.
        BadArtifact: an argument that no configuration may set.
        PipelineError: timm is not installed.
    """
    with torch.random.fork_rng(devices=[]):
        return _torchvision(architecture) if architecture.library == "torchvision" else _timm(architecture)


def rebuilt(info: Mapping[str, Any]) -> FrozenEncoder:
    """Return the encoder that a model.json names, with random weights.

    Raises:
        BadArtifact: its entry `encoder` is not complete, or names what cannot be built.
        PipelineError: timm is not installed.
    """
    facts = info.get("encoder")
    if not isinstance(facts, dict) or not isinstance(facts.get("arguments"), dict):
        raise BadArtifact("entry 'encoder' is no description of an encoder")
    try:
        return build(Architecture(str(facts.get("library")), str(facts.get("name")), facts["arguments"])).encoder
    except UsageError as error:
        raise BadArtifact(str(error)) from None


WITH_AUXILIARY_HEADS = ("googlenet", "inception_v3")
"""Networks of torchvision whose published weights need other layers and another scale of the pixels."""


def _torchvision(architecture: Architecture) -> Built:
    from torchvision import models  # takes 2 s to import

    name = architecture.name
    if name not in models.list_models(module=models) or name in WITH_AUXILIARY_HEADS:
        raise UsageError(f"--encoder torchvision:{name}: torchvision has no such classifier that can be taken")
    body = models.get_model(name, weights=None).eval()
    part = next((part for part in HEADS if hasattr(body, part)), "")
    linear = [n for n, module in body.named_modules() if isinstance(module, nn.Linear) and n.split(".")[0] == part]
    if not linear:
        raise UsageError(f"--encoder torchvision:{name}: its last layer is no linear one: take another network")
    width = body.get_submodule(linear[-1]).in_features
    owner, _, last = linear[-1].rpartition(".")
    setattr(body.get_submodule(owner), last, nn.Identity())
    published = models.get_model_weights(name).DEFAULT
    crop = published.transforms()
    size, side = crop.resize_size[0], crop.crop_size[0]
    return Built(
        FrozenEncoder(body, int(width)),
        (f"{linear[-1]}.",),
        _preprocess(size, side, tuple(crop.mean), tuple(crop.std), crop.interpolation.value),
        licence=None,
        weights=str(published),
        trained_on="ImageNet",
        fetch=lambda: published_file(str(published.url), "--encoder", "--weights FILE"),
    )


def _timm(architecture: Architecture) -> Built:
    timm = timm_library()
    name = architecture.name
    if not timm.is_model(name):
        raise UsageError(f"--encoder timm:{name}: timm {timm.__version__} has no such network")
    arguments = _checked_arguments(timm, architecture.arguments)
    try:
        body = timm.create_model(name, pretrained=False, num_classes=0, **arguments).eval()
    except (TypeError, ValueError, RuntimeError, AssertionError, KeyError) as error:
        reason = " ".join(str(error).split())[:160]
        raise BadArtifact(f"timm:{name}: cannot be built with {sorted(arguments)} ({reason})") from None
    config = dict(body.pretrained_cfg)
    head = config.get("classifier") or ()
    names = (head,) if isinstance(head, str) else tuple(head)
    tag = str(config.get("tag") or "")
    return Built(
        FrozenEncoder(body, int(body.num_features if not hasattr(body, "head_hidden_size") else body.head_hidden_size)),
        tuple(f"{part}." for part in names),
        preprocess_of_config(config),
        licence=config.get("license"),
        weights=f"{name}.{tag}" if tag else "",
        trained_on="ImageNet" if tag.endswith(("in1k", "in21k", "in22k", "in12k")) else None,
        fetch=lambda: hub_file(str(config.get("hf_hub_id") or "")),
    )


def timm_library() -> Any:
    """Import timm."""
    return import_library("timm", extra="encoders", needed_for="--encoder timm")


def hub_file(repository: str, file: str = "model.safetensors") -> Path:
    """Return a file of a repository of the Hugging Face hub, downloaded into its own cache.

    Raises:
        BadInput: it cannot be downloaded; names the file to bring.
    """
    timm_library()  # brings the hub
    hub = importlib.import_module("huggingface_hub")
    try:
        return Path(hub.hf_hub_download(repository, file))
    except Exception as error:  # noqa: BLE001  (of httpx, of the hub and of the disk: all mean the same here)
        reason = " ".join(str(error).split())[:160]
        raise BadInput(
            f"--encoder: {file} of https://huggingface.co/{repository} could not be downloaded ({reason}): bring that "
            "file and the config.json next to it, and give --weights FILE"
        ) from None


def preprocess_of_config(config: Mapping[str, Any]) -> Preprocess:
    """Return the preprocessing of timm's `pretrained_cfg`: the tile is resized to input / crop_pct, then cropped.

    Raises:
        BadArtifact: a value is missing or impossible.
    """
    try:
        side, share = int(config["input_size"][-1]), float(config.get("crop_pct") or 1.0)
        mean, std = (tuple(float(value) for value in config[name]) for name in ("mean", "std"))
        size = math.floor(side / share)
    except (KeyError, TypeError, ValueError, IndexError, ZeroDivisionError, OverflowError):
        raise BadArtifact("pretrained_cfg of the encoder lacks input_size, crop_pct, mean or std") from None
    return _preprocess(size, side, mean, std, str(config.get("interpolation", "bicubic")))


def _preprocess(
    size: int, side: int, mean: tuple[float, ...], std: tuple[float, ...], interpolation: str
) -> Preprocess:
    """Return the preprocessing of tiles that are resized to `size` px and cropped to `side` px, after checks."""
    if not 1 <= side <= size <= MOST_PX or len(mean) != 3 or len(std) != 3 or 0 in std:
        raise BadArtifact(f"the encoder takes no RGB tiles of 1 to {MOST_PX} px (resized to {size}, cropped to {side})")
    if interpolation not in INTERPOLATIONS:
        raise BadArtifact(f"the encoder's interpolation is {interpolation}, known are {', '.join(INTERPOLATIONS)}")
    return Preprocess(size, mean, std, interpolation, crop=None if side == size else side)


def _checked_arguments(timm: Any, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return arguments for timm's constructor.

    Raises:
        BadArtifact: one that no configuration may set, or a value that is neither a number nor a text nor a flag.
    """
    checked = {name: value for name, value in arguments.items() if name != "num_classes"}
    for name, value in checked.items():
        numbers = value if isinstance(value, list) else [value]
        if name not in ARGUMENTS or not all(isinstance(each, int | float | str | None) for each in numbers):
            raise BadArtifact(f"model_args of the encoder: '{name}' cannot be set")
        if any(isinstance(each, int | float) and not 0 <= each <= MOST for each in numbers):
            raise BadArtifact(f"model_args of the encoder: '{name}' is not from 0 to {MOST}")
    if (layer := checked.get("mlp_layer")) is not None:
        if layer not in MLP_LAYERS:
            raise BadArtifact(f"model_args of the encoder: mlp_layer is none of {', '.join(MLP_LAYERS)}")
        checked["mlp_layer"] = getattr(importlib.import_module("timm.layers"), layer)
    return checked
