"""The parts of a plan become one table: every tile as predicted by the networks that were trained without its fold."""

import dataclasses
import itertools
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.errors import BadArtifact, StaleInput
from pipeline.storage import atomic, freshness, records
from pipeline.storage.predictions import csv_table
from pipeline.storage.predictions.columns import hash_names
from pipeline.storage.protocol import NAME, PartEntry, Protocol, check_part

PLACE = ("memory", "cluster")
"""Options of fit_heads that stand in a record where rows did not fit into memory, which those of other parts may."""

UNPOOLED = ("search", "notes", "chosen")
"""Entries of a head that have no mean."""

MOST_VALUES = 4
"""Values of a hyper-parameter that are listed one by one."""

NETWORK_FACTS = ("arch", "recipe", "init", "metrics")
"""Facts of the parts' networks in the summary of a plan, from model.json."""


def pool(protocol: Protocol, arm: str, *, options: Mapping[str, Any], force: bool = False) -> None:
    """Write the pooled predictions of an arm and their record, unless they are current.

    Args:
        protocol: the plan.
        arm: which of its arms.
        options: what the heads were asked for; goes into the record.
        force: use parts although an input of theirs changed since.

    Raises:
        BadArtifact: a part's predictions are damaged, or their heads or classes are not those of the first part.
        StaleInput: a part's predictions are not of this plan's tiles, or a part was made with other options.
    """
    parts = [part for part in protocol.parts if part.arm == arm]
    files = [records.standing(protocol.folder(part) / "predictions.csv") for part in parts]
    out = records.standing(protocol.predictions(arm))
    seed = protocol.seeds[0]
    artifact = records.Artifact(out, csv_table.SCHEMA, "fit_heads", options, files, seed)
    found = []
    for part, path in zip(parts, files, strict=True):
        check_part(protocol, part)
        record = records.check_artifact(path, schema=csv_table.SCHEMA)
        if not force:
            freshness.check_inputs_unchanged(path, record)
        refuse_other_making(path.parent, files[0].parent)
        found.append(record["details"])
    if freshness.reusable_record(artifact) is not None:
        return
    out = write_pooled(protocol, parts, files)
    summary = []
    if arm == protocol.main_arm:
        contents = [atomic.from_json(path.parent / "heads" / "heads.json") for path in files]
        networks = [atomic.from_json(path.parent / "model.json") for path in files]
        facts = [{name: network[name] for name in NETWORK_FACTS} | stain_in(network) for network in networks]
        training = typical(facts)
        summary.append(out.with_name("heads") / "heads.json")
        atomic.write_text(summary[0], atomic.to_json(summary_of(contents) | {"training": training}))
    shared = {name: found[0][name] for name in ("dataset", "credit", "fit_on", "calibrated_on")}
    records.write_record(
        dataclasses.replace(artifact, path=out),
        outputs=summary,
        details=shared
        | {
            "protocol": protocol.protocol if arm == protocol.main_arm else arm,
            "fit_on": "crossfit" if protocol.n_inner else shared["fit_on"],
            "protocol_sha256": atomic.sha256_file(protocol.run / NAME),
            "n_folds": protocol.n_folds,
            "seeds": protocol.seeds,
            "n_inner": protocol.n_inner,
            "n_train": float(np.mean([details["n_train"] for details in found])),
            "n_skipped": max(details["n_skipped"] for details in found),
        },
    )


def stain_in(network: Mapping[str, Any]) -> dict[str, Any]:
    """Return the method of stain normalisation for the summary of a plan; each part has its own target."""
    stain = network.get("preprocess", {}).get("stain")
    return {"stain": stain["method"]} if stain else {}


def write_pooled(protocol: Protocol, parts: list[PartEntry], files: list[Path]) -> Path:
    """Write the pooled predictions of some parts and return the file; the parts of one fold are held at a time.

    In a CSV file the lines of each head stand together; in Parquet each head has row groups of its own.

    Args:
        protocol: the plan.
        parts: of one arm.
        files: their predictions.

    Raises:
        BadArtifact: heads or classes of a part are not those of the first, or a tile is tested in two folds of a seed.
    """
    by_fold: dict[tuple[int, int], list[Path]] = {}
    for part, path in zip(parts, files, strict=True):
        by_fold.setdefault((part.seed, part.fold), []).append(path)
    folds = _pooled_folds(by_fold, files[0])
    head_fold = next(folds)
    n_test = {(part.seed, part.fold): part.n["test"] for part in parts}
    heads = list(head_fold["head"].unique())
    out = csv_table.table_for(protocol.predictions(parts[0].arm), sum(n_test.values()) * len(heads))
    folds = itertools.chain([head_fold], folds)
    keys: dict[Any, list[np.ndarray]] = {}
    with csv_table.written(out) as add:
        for table in folds if out.suffix == ".parquet" else [pd.concat(folds)]:
            for head, lines in table.groupby("head", sort=False):
                add(lines)
                for seed, ids in lines.groupby("seed")["tile_id"] if head == heads[0] else ():
                    keys.setdefault(seed, []).append(hash_names(ids))
        for hashes in map(np.concatenate, keys.values()):
            if len(np.unique(hashes)) != len(hashes):
                raise BadArtifact(
                    f"{protocol.run}: a tile is tested in two folds of one seed: run extract and fit_heads again"
                )
    return out


def _pooled_folds(by_fold: Mapping[tuple[int, int], list[Path]], first: Path) -> Iterator[pd.DataFrame]:
    """Yield the test rows of each fold; the heads and classes of all files must be those of the first."""
    kind = None
    for (seed, fold), paths in by_fold.items():
        tables = []
        for path in paths:
            table = csv_table.read_predictions(path)
            found = list(table.columns), list(table["head"].unique())
            kind = kind or found
            if found != kind:
                raise BadArtifact(f"{path}: its heads or classes are not those of {first}: run fit_heads --restart")
            tables.append(table[table["split"] == "test"])
        yield mean_of(tables, seed=seed, fold=fold)


def refuse_other_making(part: Path, first: Path) -> None:
    """Refuse to pool a part whose network, embeddings or heads were made with other options than the first part's.

    Or whose network was trained in another precision, where `auto` came out differently. Engines of the embeddings may
    differ: each agrees with plain fp32 on its own part, or it would not have been taken.

    Raises:
        StaleInput: names the file and the options.
    """
    for name in ("model.safetensors", "embeddings.h5", "predictions.csv"):
        own, other = (made_by(records.read_record_alone(records.standing(place / name))) for place in (part, first))
        if changed := [key for key in own if own[key] != other.get(key)]:
            listing = ", ".join(f"{key}={own[key]!r}, there {other.get(key)!r}" for key in changed)
            raise StaleInput(f"{part / name} was made with other options than in {first} ({listing}): make them alike")


def made_by(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options in a record, with the precision that a network was trained in; where rows lay is left out."""
    return {
        **{name: value for name, value in record["options"].items() if name not in PLACE},
        "trained in": record["details"].get("precision") if record["stage"] == "train" else None,
    }


def mean_of(tables: list[pd.DataFrame], *, seed: int, fold: int) -> pd.DataFrame:
    """Return the test rows of one fold: probabilities averaged over its inner networks, if it has several.

    As scikit-learn's CalibratedClassifierCV(ensemble=True) averages its classifiers, each calibrated by itself.

    Raises:
        BadArtifact: the tables do not hold the same rows.
    """
    first = tables[0].reset_index(drop=True)
    names = [name for name in first.columns if name.startswith("p_")]
    keys = ["tile_id", "group", "label", "head"]
    if any(not table[keys].reset_index(drop=True).equals(first[keys]) for table in tables):
        raise BadArtifact(f"the parts of seed {seed}, fold {fold} do not hold the same test rows: run prepare again")
    p = np.mean([table[names].to_numpy() for table in tables], axis=0)
    classes = np.array(csv_table.classes_of(first), dtype=object)
    if len(tables) > 1:
        first[names] = p
        first["predicted"] = classes[p.argmax(axis=1)]
    return first.assign(seed=seed, fold=fold)


def summary_of(contents: list[dict[str, Any]]) -> dict[str, Any]:
    """Return one heads.json for those of all parts: means of numbers, else each value with how many parts have it.

    What was tried and the parameters of calibrations stay in the parts.
    """
    heads = {}
    for name in contents[0]["heads"]:
        facts = [content["heads"][name] for content in contents]
        heads[name] = typical([{k: v for k, v in entry.items() if k not in UNPOOLED} for entry in facts])
        chosen = [entry["chosen"] for entry in facts]
        heads[name]["chosen"] = {key: spread([c[key] for c in chosen if key in c]) for c in chosen for key in c}
        heads[name].get("calibration", {}).pop("params", None)
    probes = [content["source_probe"] for content in contents]
    asked = [probe for probe in probes if "accuracy" in probe]
    probe = (typical(asked) | {"n_asked": len(asked), "n_parts": len(probes)}) if asked else probes[0]
    apart = typical([content["separability"] for content in contents])
    shared = {"classes": contents[0]["classes"], "n_parts": len(contents)}
    return {**shared, "heads": heads, "source_probe": probe, "separability": apart}


def spread(values: list[Any]) -> str:
    """Return the values of a hyper-parameter over the parts: each with how many parts have it, or their range."""
    texts = [f"{value:.6g}" if isinstance(value, float) else str(value) for value in values]
    counts = Counter(texts).most_common()
    if len(counts) <= MOST_VALUES or any(isinstance(value, str) for value in values):
        return texts[0] if len(counts) == 1 else ", ".join(f"{text} ({n})" for text, n in counts)
    return f"{min(values):.6g} to {max(values):.6g}"


def typical(values: list[Any]) -> Any:
    """Return one value for many, see `summary_of`; of dictionaries, for every key that any of them has.

    Values that a part does not have (None) do not count.
    """
    values = [value for value in values if value is not None] or [None]
    if all(isinstance(value, dict) for value in values):
        names = dict.fromkeys(name for value in values for name in value)
        return {name: typical([value[name] for value in values if name in value]) for name in names}
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        return float(np.mean(values))
    counts = Counter(str(value) for value in values).most_common()
    return values[0] if len(counts) == 1 else ", ".join(f"{value} ({n})" for value, n in counts)
