"""Make a frozen encoder the network of a run: model.safetensors with model.json, as training writes them."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.errors import BadArtifact, BadInput, UsageError
from pipeline.network.encoders.frozen import FrozenEncoder, measure
from pipeline.network.encoders.libraries import Architecture, build, hub_file, parse_encoder, preprocess_of_config
from pipeline.network.model_file import SCHEMA, description_path, save_model
from pipeline.network.preprocess import Preprocess, mpp_of
from pipeline.network.start_weights import load_start_weights
from pipeline.runtime.console import log
from pipeline.storage import atomic, freshness, records
from pipeline.tiles.manifest import Manifest

DEFAULT = "default"
"""Value of `--weights` for the weights that the library publishes."""

HUB = "hf-hub:"
"""Beginning of a name of timm that is a repository of the Hugging Face hub."""

CONFIG = "config.json"
"""timm's description of weights, next to their file: architecture, model_args, pretrained_cfg."""


@dataclasses.dataclass(frozen=True)
class Choice:
    """The encoder of a run as the user names it."""

    name: str
    """`torchvision:<network>` or `timm:<network>`."""

    weights: str
    """`DEFAULT`, or the path of a file."""

    @property
    def file(self) -> Path | None:
        """The file of the weights; None for those that the library publishes.

        Raises:
            BadInput: no such file.
        """
        file = None if self.weights == DEFAULT else Path(self.weights)
        if file is not None and not file.is_file():
            raise BadInput(f"--weights {file}: no such file")
        return file


@dataclasses.dataclass(frozen=True)
class LoadedEncoder:
    """An encoder with its weights."""

    architecture: Architecture
    encoder: FrozenEncoder
    preprocess: Preprocess
    facts: Mapping[str, Any]
    """The entry `encoder` of model.json."""


def install_encoder(path: Path, manifest: Manifest, choice: Choice, *, restart: bool = False) -> None:
    """Write the encoder as the network of a run, unless it is there.

    Args:
        path: model.safetensors of the run.
        manifest: of the run; names the classes.
        choice: encoder and weights.
        restart: replace the network that is there.

    Raises:
        UsageError: no such encoder, or a trained network is there.
        BadInput: the weights are missing and cannot be downloaded; names the file to bring.
        BadArtifact: the file holds no weights of this network, or its configuration is not usable.
        StaleInput: another encoder, or one with other weights, is there.
    """
    file = choice.file
    if records.record_path(path).is_file() and records.read_record_alone(path)["stage"] == "train":
        raise UsageError(f"--encoder {choice.name}: {path} is a trained network: give another --run")
    files = [] if file is None else [each for each in (file, file.with_name(CONFIG)) if each.is_file()]
    artifact = records.Artifact(
        path,
        SCHEMA,
        "extract",
        {"encoder": choice.name, "weights": DEFAULT if file is None else f"./{file.name}"},  # not its whole path
        [manifest.path, *files],
        protects="everything",
    )
    if freshness.reusable_record(artifact, restart=restart) is not None:
        return
    loaded = load_encoder(choice)
    preprocess = dataclasses.replace(loaded.preprocess, mpp=mpp_of(manifest, loaded.preprocess.size))
    architecture, facts = loaded.architecture, loaded.facts
    info = {
        "arch": str(architecture),
        "classes": manifest.classes,
        "preprocess": preprocess.as_json(),
        "encoder": facts,
        "licence_of_data": manifest.details.get("licence"),
        "credit": manifest.details.get("credit"),
    }
    save_model(path, loaded.encoder.body.state_dict(), info)
    records.write_record(
        artifact,
        outputs=[description_path(path)],
        details={"dataset": manifest.details["dataset"], "protocol": manifest.details["protocol"], "encoder": facts},
    )
    log.info(
        f"extract: {architecture}, frozen, weights {facts['weights']} ({facts['weights_sha256'][:12]}), "
        f"{loaded.encoder.width} features, tiles of {preprocess.input_px} px: {path}"
    )


def load_encoder(choice: Choice) -> LoadedEncoder:
    """Return an encoder with its weights, in eval mode on the CPU.

    Raises:
        UsageError: no such encoder.
        BadInput: the weights are missing and cannot be downloaded; names the file to bring.
        BadArtifact: the file holds no weights of this network, or its configuration is not usable.
    """
    file = choice.file
    architecture, config = resolve(choice.name, file)
    built = build(architecture)
    if file is not None:
        known = {"weights": file.name, "licence": config.get("license"), "trained_on": None}
        if "input_size" not in config:
            log.warning(
                f"extract: no {CONFIG} next to {file}: tiles are preprocessed as for the weights of {architecture} "
                "that its library publishes"
            )
    elif HUB in choice.name:
        repository = choice.name.split(HUB)[1]
        file = hub_file(repository)
        known = {"weights": repository, "licence": config.get("license"), "trained_on": None}
    else:
        file = built.fetch()
        known = {"weights": built.weights or file.name, "licence": built.licence, "trained_on": built.trained_on}
    body = built.encoder.body
    weights = load_start_weights(body, file, head=built.head, option="--weights")
    preprocess = preprocess_of_config(config) if "input_size" in config else built.preprocess
    flops = measure(built.encoder, preprocess.input_px)
    facts = {
        **dataclasses.asdict(architecture),
        "requested": choice.name,
        **known,
        "weights_sha256": weights.sha256,
        "dimension": built.encoder.width,
        "parameters": sum(parameter.numel() for parameter in body.parameters()),
        "gflops": flops / 1e9,
    }
    return LoadedEncoder(architecture, built.encoder, preprocess, facts)


def resolve(name: str, file: Path | None) -> tuple[Architecture, dict[str, Any]]:
    """Return the network of a name, and the `pretrained_cfg` of its weights, {} without one.

    The configuration is `CONFIG` next to a file of the user. For a repository of the hub it is the one there.

    Raises:
        UsageError: no known library.
        BadInput: the configuration of the repository cannot be downloaded.
        BadArtifact: the configuration cannot be used.
    """
    architecture = parse_encoder(name)
    is_hub = architecture.name.startswith(HUB)
    path = file.with_name(CONFIG) if file is not None else None
    if is_hub and path is not None and not path.is_file():
        raise BadInput(f"--weights {file}: no {CONFIG} next to it: bring that file of the repository, too")
    if is_hub and path is None:
        path = hub_file(architecture.name.removeprefix(HUB), CONFIG)
    if path is None or not path.is_file():
        return architecture, {}
    content = atomic.from_json(path)
    if not isinstance(content, dict):
        raise BadArtifact(f"{path}: no configuration of timm: remove it or correct it")
    given, arguments = content.get("architecture"), content.get("model_args") or {}
    config = content.get("pretrained_cfg", content)
    if not isinstance(arguments, dict) or not isinstance(config, dict) or not isinstance(given or "", str):
        raise BadArtifact(f"{path}: no configuration of timm: remove it or correct it")
    if is_hub:
        architecture = dataclasses.replace(architecture, name=str(given))
    elif given and given.split(".")[0] != architecture.name.split(".")[0]:
        raise BadArtifact(f"{path}: describes {given}, not {architecture.name}: give --encoder timm:{given}")
    return dataclasses.replace(architecture, arguments=arguments), config
