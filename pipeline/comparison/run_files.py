"""What else the run folder knows: heads, training, audit, tiles, embeddings. None of it is needed, each is checked."""

import dataclasses
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from pipeline.errors import BadArtifact, PipelineError
from pipeline.markup.number_format import is_number
from pipeline.storage import atomic, records
from pipeline.storage.embeddings.reader import Embeddings, read_embeddings
from pipeline.tiles.manifest import Manifest, read_manifest
from pipeline.tiles.stain_normalisation import stain_of

EMBEDDINGS = "embeddings.h5"

OWNERS = {
    "heads/heads.json": "predictions.csv",
    "history.csv": "model.safetensors",
    "model.json": "model.safetensors",
    "audit.json": "manifest.csv",
    "protocol.json": "manifest.csv",
}
"""File -> the artefact whose record lists it."""

RANDOM_CONTROL = "predictions-random.csv"
"""The pooled predictions of a plan's random-split control."""

PLAIN_FIGURES = ("figures/history.png",)
PIXEL_FIGURES = ("figures/classes.png", "figures/batch.png")
"""Figures of earlier stages that the report shows; the second kind contains pixels of tiles."""

PROBED = ("chance", "balanced_accuracy", "chance_balanced", "n_tiles", "n_groups")
"""What source_probe says beside `accuracy`, where it was asked."""

HISTORY_COLUMNS = ("epoch", "train_loss", "val_loss", "val_accuracy")

Content = TypeVar("Content")


@dataclasses.dataclass(frozen=True)
class Context:
    """Contents of the optional files; None where one is absent or cannot be used."""

    heads: dict[str, dict[str, Any]]
    """Head -> its entry of heads.json; empty if there is none."""

    probes: dict[str, Any]
    """source_probe and separability of heads.json, of a plan training too; empty if there is none."""

    history: pd.DataFrame | None
    model: dict[str, Any] | None
    findings: list[dict[str, Any]] | None
    """The audit's."""

    manifest: Manifest | None
    embeddings: Embeddings | None
    """Without features: the map reads those of the tiles that it shows."""

    figures: frozenset[str]
    """Names, relative to the run, of figures of earlier stages."""

    missing: dict[str, str]
    """File -> why it was left out."""

    @property
    def start_weights(self) -> str | None:
        """What the training started from, None for scratch or if nobody says."""
        start = (self.model or self.probes.get("training") or {}).get("init")
        return None if start is None else str(start)

    @property
    def stain(self) -> str | None:
        """The method that tiles are normalised in stain by, None for none or if nobody says."""
        if self.model is not None:
            stain = (self.model.get("preprocess", {}).get("stain") or {}).get("method")
        else:
            stain = self.probes.get("training", {}).get("stain")
        return None if stain is None else str(stain)

    def reason(self, name: str) -> str:
        """Return the sentence that says what is left out and why."""
        return f"n/a: {name} was left out ({self.missing.get(name, 'it holds nothing of this')})."


LARGEST = {"manifest.csv": 250_000_000, EMBEDDINGS: 10_000_000_000}
"""File -> bytes up to which it is read: about a million tiles. Of more, the report shows no picture and no map."""


def context_files(run: Path, *, pixels: bool, embeddings: bool) -> list[Path]:
    """Return the optional files of the run folder that decide what the report shows.

    A figure that is a link is passed over: the report holds a copy of it, and would carry any file of this machine.

    Args:
        run: the run folder.
        pixels: whether the report may show tiles.
        embeddings: whether it holds the map of the embeddings.
    """
    names = [*OWNERS, *PLAIN_FIGURES]
    names += [records.standing(run / RANDOM_CONTROL).name, "robustness.csv"]
    names += PIXEL_FIGURES if pixels else []
    names += ["manifest.csv"] if pixels else []
    names += [EMBEDDINGS] if embeddings else []
    figures = {run / name for name in (*PLAIN_FIGURES, *PIXEL_FIGURES)}
    found = [run / name for name in names if (run / name).is_file() and not _is_too_large(run, name)]
    return [path for path in found if not (path in figures and path.is_symlink())]


def _is_too_large(run: Path, name: str) -> bool:
    return name in LARGEST and (run / name).stat().st_size > LARGEST[name]


def read_context(run: Path, files: Iterable[Path]) -> Context:
    """Read the optional files; one that is damaged is left out and listed in `missing`."""
    present = {path.relative_to(run).as_posix() for path in files}
    missing: dict[str, str] = {}

    def attempt(name: str, read: Callable[[Path], Content]) -> Content | None:
        if name not in present:
            missing[name] = "not there"
            if (run / name).is_file():
                missing[name] = "too many tiles for single ones" if _is_too_large(run, name) else "not asked for"
            return None
        try:
            _check_owner(run, name)
            return read(run / name)
        except PipelineError as error:
            missing[name] = str(error).replace(f"{run}/", "")
        except (ValueError, KeyError, TypeError, RecursionError):
            missing[name] = "its content is not what the schema says: run the stage that makes it again"
        return None

    of_rows = (records.standing(run / RANDOM_CONTROL).name, "robustness.csv")
    missing |= {name: "not there" for name in of_rows if name not in present}
    return Context(
        heads=attempt("heads/heads.json", _read_heads) or {},
        probes=attempt("heads/heads.json", _read_probes) or {},
        history=attempt("history.csv", _read_history),
        model=attempt("model.json", _read_model),
        findings=attempt("audit.json", _read_findings),
        manifest=attempt("manifest.csv", read_manifest),
        embeddings=attempt("embeddings.h5", lambda path: read_embeddings(path, with_features=False)),
        figures=frozenset(present & {*PLAIN_FIGURES, *PIXEL_FIGURES}),
        missing=missing,
    )


def _check_owner(run: Path, name: str) -> None:
    """Check a companion file against the record of its artefact, where that stands in the run folder.

    The artefact itself may be missing (models are not committed); `verify` is the place that misses it.
    """
    path = run / name
    owner = records.standing(run / OWNERS.get(name, name))
    for artifact in (path, owner):
        if artifact.is_file() and records.record_path(artifact).is_file():
            record = records.read_record(artifact)
            expected = record["sha256"] if artifact == path else record["outputs"].get(name)
            if expected is not None and atomic.sha256_file(path) != expected:
                raise BadArtifact(f"{name}: not the file that was written: make it again")


def _read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _read_model(path: Path) -> dict[str, Any]:
    """Return model.json, after checking the part of `preprocess` that the report reads."""
    model = dict(_read_json(path))
    preprocess = model.get("preprocess", {})
    if not isinstance(preprocess, dict):
        raise ValueError
    stain_of(preprocess.get("stain"))
    return model


def _read_heads(path: Path) -> dict[str, dict[str, Any]]:
    """Return the entries of heads.json by head, after checking the parts that the report reads."""
    heads = {str(head): dict(entry) for head, entry in dict(_read_json(path)["heads"]).items()}
    for entry in heads.values():
        for name, kind in (("chosen", dict), ("search", list), ("calibration", dict), ("notes", list)):
            entry[name] = kind(entry.get(name) or ())
        entry["search"] = [dict(trial) for trial in entry["search"]]
    return heads


def _read_probes(path: Path) -> dict[str, Any]:
    content = _read_json(path)
    probes = {name: dict(content[name]) for name in ("source_probe", "separability", "training") if name in content}
    probe = probes.get("source_probe", {})
    if is_number(probe.get("accuracy")) and not all(is_number(probe.get(name)) for name in PROBED):
        raise ValueError
    probes["separability"] = {name: dict(found) for name, found in probes.get("separability", {}).items()}
    return probes


def _read_findings(path: Path) -> list[dict[str, Any]]:
    return [
        {"severity": str(item["severity"]), "what": str(item["what"]), "tiles": [str(tile) for tile in item["tiles"]]}
        for item in _read_json(path)["findings"]
    ]


def _read_history(path: Path) -> pd.DataFrame:
    history = pd.read_csv(path)
    if not set(HISTORY_COLUMNS) <= set(history.columns) or history.empty:
        raise ValueError
    return history.astype(dict.fromkeys(HISTORY_COLUMNS, float))
