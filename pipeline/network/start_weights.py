"""Load start weights from a state dict of the user, also inside a wrapper or with a prefix in all names."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pipeline.errors import BadArtifact
from pipeline.storage.atomic import sha256_file
from pipeline.storage.placeholder import placeholder
from pipeline.storage.zip_guard import check_not_packed

WRAPPERS = ("state_dict", "model", "teacher", "student", "net")
"""Keys of the state dict in files of training frameworks, in the order of preference."""

MOST_WRAPPERS = 3
"""Most nested wrappers that are removed."""

N_NAMED = 3
"""Most names in a message."""


@dataclasses.dataclass(frozen=True)
class StartWeights:
    """The file that start weights came from."""

    sha256: str
    removed: str
    """Text that names the removed wrapper and prefix; "" for neither."""


def load_start_weights(
    network: nn.Module, path: Path, *, head: tuple[str, ...] = ("fc.",), option: str = "--init"
) -> StartWeights:
    """Load weights from a safetensors file or a state dict of torch; the last layer of the network is kept.

    No pickle is run: torch's files are read with weights_only (P3). Wrappers and one prefix of all names are removed.

    Args:
        network: gets the weights.
        path: the file.
        head: beginnings of the names of the last layer, which is not loaded.
        option: of the command, for messages.

    Raises:
        BadArtifact: not readable, or not the weights of this architecture.
    """
    own = [name for name in network.state_dict() if not name.startswith(head) and "num_batches" not in name]
    anchor, needed = own[0], set(own)
    content = _read(path, option)
    named, wrappers = _unwrapped(content, anchor)
    wrapper = ".".join(wrappers)
    state = {str(name): value for name, value in named.items() if isinstance(value, torch.Tensor)}
    starts = [name.removesuffix(anchor) for name in state if name == anchor or name.endswith(f".{anchor}")]
    # blocks may have a parameter of that name, too; the network's own one has all other parameters next to it
    prefixes = [start for start in starts if all(start + name in state for name in needed)]
    if len(prefixes) != 1:
        raise BadArtifact(
            f"{option} {path}: missing parameters, or several networks; {_described(content, wrapper, state, needed)}: "
            "another architecture?"
        )
    (prefix,) = prefixes
    if others := [name for name in state if not name.startswith(prefix)]:
        raise BadArtifact(
            f"{option} {path}: holds more than one network: {_listed(others)} next to names that begin with {prefix!r}"
            ": save the state dict of the network alone"
        )
    state = {name.removeprefix(prefix): value for name, value in state.items()}
    state = {name: value for name, value in state.items() if not name.startswith(head)}
    try:
        unexpected = network.load_state_dict(state, strict=False).unexpected_keys
    except RuntimeError as error:  # other shapes
        raise _not_usable(option, path, " ".join(str(error).split())[:160]) from None
    if unexpected:
        raise BadArtifact(f"{option} {path}: unknown parameters ({_listed(unexpected)}): another architecture?")
    parts = [f"the wrapper {wrapper!r}" if wrapper else "", f"the prefix {prefix!r}" if prefix else ""]
    return StartWeights(sha256_file(path), " and ".join(filter(None, parts)))


def _unwrapped(content: Mapping[str, Any], anchor: str) -> tuple[Mapping[str, Any], list[str]]:
    """Return the innermost dictionary with the weights of the network, and the names that lead to it.

    From several dictionaries with weights the first name of `WRAPPERS` is used; without such a name, none.
    """
    wrappers: list[str] = []
    for _ in range(MOST_WRAPPERS):
        if any(str(name).endswith(anchor) for name in content):
            break
        names = [name for name in content if isinstance(name, str)]
        inside = [name for name in names if _has_network(content[name], anchor, MOST_WRAPPERS - len(wrappers))]
        known = [name for name in WRAPPERS if name in inside or (not inside and isinstance(content.get(name), Mapping))]
        if not known and len(inside) != 1:
            break
        wrappers.append((known or inside)[0])
        content = content[wrappers[-1]]
    return content, wrappers


def _has_network(value: object, anchor: str, depth: int) -> bool:
    """Return whether a value is a dictionary that holds weights of the network, at most `depth` levels down."""
    if depth == 0 or not isinstance(value, Mapping):
        return False
    return any(str(name).endswith(anchor) or _has_network(inner, anchor, depth - 1) for name, inner in value.items())


def _read(path: Path, option: str) -> Mapping[str, Any]:
    """Return the content of a file of weights.

    Raises:
        BadArtifact: not readable, or no dictionary.
    """
    check_not_packed(path)
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise BadArtifact(f"{option} {path}: no such file") from None
    except Exception as error:  # noqa: BLE001  (torch and safetensors raise many types)
        if what := placeholder(path):
            raise BadArtifact(f"{option} {path}: {what}") from None
        reason = " ".join(str(error).split())[:160]
        if type(error).__name__ == "UnpicklingError":  # torch's own message advises to run the file's code
            reason = "it holds objects other than tensors, which are never loaded"
        raise _not_usable(option, path, reason) from None
    if not isinstance(content, Mapping):
        raise _not_usable(option, path, f"it holds a {type(content).__name__}")
    return content


def _not_usable(option: str, path: Path, reason: str) -> BadArtifact:
    return BadArtifact(f"{option} {path}: not a state dict of this architecture: {reason}")


def _described(content: Mapping[str, Any], wrapper: str, state: Mapping[str, Any], needed: set[str]) -> str:
    """Return a text about the content of a file."""
    inside = f"it holds {_listed([repr(name) for name in content])}" if wrapper or not state else ""
    names = f"its names are {_listed(list(state))}" if state else ""
    lacks = f"it lacks {_listed(sorted(needed - set(state)))}" if needed & set(state) else ""
    return "; ".join(filter(None, [inside, names, lacks]))


def _listed(names: list[str]) -> str:
    """Return the first names, with dots for the others."""
    return ", ".join(names[:N_NAMED]) + (" ..." if len(names) > N_NAMED else "")
