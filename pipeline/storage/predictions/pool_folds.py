"""Pool the predictions of a plan's parts: every tile is predicted by networks that were trained without its fold."""

import dataclasses
import itertools
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.errors import BadArtifact, StaleInput
from pipeline.names import RunFile
from pipeline.storage import atomic, freshness, records
from pipeline.storage.predictions import csv_table
from pipeline.storage.predictions.columns import hash_names
from pipeline.storage.predictions.inner_networks import mean_offsets, mean_predictions
from pipeline.storage.protocol import PartEntry, Protocol, check_part

MEMORY_OPTIONS = ("memory", "cluster")
"""Options of fit_heads in a record of rows that did not fit into memory; they may differ between the parts."""

NOT_SUMMARISED = ("search", "notes", "chosen")
"""Entries of a head in heads.json that are left out of the summary."""

MOST_VALUES = 4
"""Most values of a hyper-parameter that are listed one by one."""

NETWORK_FACTS = ("arch", "recipe", "init", "metrics")
"""Entries of model.json in the summary of a plan."""


def pool(protocol: Protocol, arm: str, *, options: Mapping[str, Any], force: bool = False) -> None:
    """Write the pooled predictions of an arm and their record, unless they are current.

    Args:
        protocol: the plan.
        arm: name of the arm.
        options: options of fit_heads, for the record.
        force: use parts although one of their inputs changed.

    Raises:
        BadArtifact: the predictions of a part are damaged, or have other heads or classes than the first part.
        StaleInput: the predictions of a part are of another plan, or were made with other options.
    """
    parts = [part for part in protocol.parts if part.arm == arm]
    files = [records.existing_table(protocol.folder(part) / RunFile.PREDICTIONS) for part in parts]
    out = records.existing_table(protocol.predictions(arm))
    seed = protocol.seeds[0]
    artifact = records.Artifact(out, csv_table.SCHEMA, "fit_heads", options, files, seed)
    found = []
    for part, path in zip(parts, files, strict=True):
        check_part(protocol, part)
        record = freshness.checked_record(path, schema=csv_table.SCHEMA, force=force)
        check_same_options(path.parent, files[0].parent)
        found.append(record["details"])
    if freshness.reusable_record(artifact) is not None:
        return
    out = write_pooled(protocol, parts, files)
    summary = []
    if arm == protocol.main_arm:
        contents = [atomic.from_json(path.parent / RunFile.HEADS) for path in files]
        networks = [atomic.from_json(path.parent / RunFile.MODEL_FACTS) for path in files]
        training = summarise([{k: v for k, v in each.items() if k in NETWORK_FACTS} for each in networks])
        summary.append(out.parent / RunFile.HEADS)
        atomic.write_text(summary[0], atomic.to_json(summary_of(contents) | {"training": training}))
    names = ("dataset", "credit", "fit_on", "calibrated_on", "encoder", "decide", "relative")
    shared = {name: found[0].get(name) for name in names}
    if found[0].get("normalised"):
        unchanged = {name for details in found for name in details["normalised"]["unchanged"]}
        shared["normalised"] = {"unchanged": sorted(unchanged)}
    shared |= {name: found[0][name] for name in ("baselines_normalised",) if name in found[0]}
    records.write_record(
        dataclasses.replace(artifact, path=out),
        outputs=summary,
        details=shared
        | {
            "protocol": protocol.protocol if arm == protocol.main_arm else arm,
            "fit_on": "crossfit" if protocol.n_inner else shared["fit_on"],
            "protocol_sha256": atomic.sha256_file(protocol.run / RunFile.PROTOCOL),
            "n_folds": protocol.n_folds,
            "seeds": protocol.seeds,
            "n_inner": protocol.n_inner,
            "n_train": float(np.mean([details["n_train"] for details in found])),
            "n_skipped": max(details["n_skipped"] for details in found),
        },
    )


def write_pooled(protocol: Protocol, parts: list[PartEntry], files: list[Path]) -> Path:
    """Write the pooled predictions of some parts and return the file. Memory holds the parts of one fold at a time.

    A CSV file lists head after head; a Parquet file has separate row groups for each head.

    Raises:
        BadArtifact: the parts have different heads or classes, or a tile is tested in two folds of a seed.
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
    """Yield the test rows of each fold; all files must have the heads and classes of the first."""
    kind = None
    for (seed, fold), paths in by_fold.items():
        tables = []
        for path in paths:
            table = csv_table.read_predictions(path)
            found = list(table.columns), list(table["head"].unique())
            kind = kind or found
            if found != kind:
                raise BadArtifact(f"{path}: its heads or classes differ from {first}: run fit_heads --restart")
            tables.append(table[table["split"] == "test"])
        offsets = mean_offsets([path.parent for path in paths]) if len(paths) > 1 else {}
        yield mean_of(tables, seed=seed, fold=fold, offsets=offsets)


def check_same_options(part: Path, first: Path) -> None:
    """Check that network, embeddings and heads of a part were made with the options of the first part.

    The precision of training must also agree. The engines of the embeddings may differ: each was checked against fp32.
    So may the switches that follow the colours of the part's own training sources.

    Raises:
        StaleInput: names the file and the options.
    """
    for name in (RunFile.MODEL, RunFile.EMBEDDINGS, RunFile.PREDICTIONS):
        files = (records.existing_table(folder / name) for folder in (part, first))
        own, other = (recorded_options(records.read_record_alone(file)) for file in files)
        if changed := freshness.differences(own, other, word="there"):
            raise StaleInput(
                f"{part / name} was made with other options than in {first} ({changed}): use the same ones"
            )


def recorded_options(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options in a record that decide for all parts, and the precision that a network was trained in.

    Left out are `MEMORY_OPTIONS`, and what the colours of the training tiles decided.
    """
    left_out = {*MEMORY_OPTIONS, *record["details"].get("decided_by_colours", ())}
    return {
        **{name: value for name, value in record["options"].items() if name not in left_out},
        "trained in": record["details"].get("precision") if record["stage"] == "train" else None,
    }


def mean_of(
    tables: list[pd.DataFrame], *, seed: int, fold: int, offsets: Mapping[str, np.ndarray] | None = None
) -> pd.DataFrame:
    """Return the test rows of one fold, with probabilities averaged over its inner networks.

    Args:
        tables: of the fold's inner networks.
        seed: of the fold.
        fold: its number.
        offsets: head -> (K,), subtracted from log-probabilities before the decision; none: the largest one decides.

    Raises:
        BadArtifact: the tables have different rows.
    """
    first = tables[0].reset_index(drop=True)
    keys = ["tile_id", "group", "label", "head"]
    if any(not table[keys].reset_index(drop=True).equals(first[keys]) for table in tables):
        raise BadArtifact(f"the parts of seed {seed}, fold {fold} have different test rows: run prepare again")
    if len(tables) > 1:
        first = mean_predictions([first, *tables[1:]], offsets or {})
    return first.assign(seed=seed, fold=fold)


def summary_of(contents: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the summary of the heads.json of all parts: means of numbers, counts of other values.

    Points of searches and parameters of calibrations are left out.
    """
    heads = {}
    for name in contents[0]["heads"]:
        facts = [content["heads"][name] for content in contents]
        heads[name] = summarise([{k: v for k, v in entry.items() if k not in NOT_SUMMARISED} for entry in facts])
        chosen = [entry["chosen"] for entry in facts]
        heads[name]["chosen"] = {key: list_values([c[key] for c in chosen if key in c]) for c in chosen for key in c}
        heads[name].get("calibration", {}).pop("params", None)
        heads[name].get("decision", {}).pop("log_prior", None)
    probes = [content["source_probe"] for content in contents]
    measured = [probe for probe in probes if "accuracy" in probe]
    probe = (summarise(measured) | {"n_probed": len(measured), "n_parts": len(probes)}) if measured else probes[0]
    separability = summarise([content["separability"] for content in contents])
    shared = {"classes": contents[0]["classes"], "n_parts": len(contents)}
    return {**shared, "heads": heads, "source_probe": probe, "separability": separability}


def list_values(values: list[Any]) -> str:
    """Return the values of a hyper-parameter over the parts: each with its count, or the range of many."""
    texts = [f"{value:.6g}" if isinstance(value, float) else str(value) for value in values]
    counts = Counter(texts).most_common()
    if len(counts) <= MOST_VALUES or any(isinstance(value, str) for value in values):
        return texts[0] if len(counts) == 1 else ", ".join(f"{text} ({n})" for text, n in counts)
    return f"{min(values):.6g} to {max(values):.6g}"


def summarise(values: list[Any]) -> Any:
    """Return the mean of numbers, the counts of other values, and for dictionaries the summary of every key.

    None does not count as a value.
    """
    values = [value for value in values if value is not None] or [None]
    if all(isinstance(value, dict) for value in values):
        names = dict.fromkeys(name for value in values for name in value)
        return {name: summarise([value[name] for value in values if name in value]) for name in names}
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        return float(np.mean(values))
    counts = Counter(str(value) for value in values).most_common()
    return values[0] if len(counts) == 1 else ", ".join(f"{value} ({n})" for value, n in counts)
