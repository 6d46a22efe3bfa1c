"""The parts of a plan become one table: every tile as predicted by the networks that were trained without its fold."""

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from pipeline.errors import BadArtifact
from pipeline.storage import artifacts, predictions, records
from pipeline.storage.protocol import Protocol, check_part

NETWORK_FACTS = ("arch", "recipe", "init", "metrics")
"""What the summary of a plan says of the parts' networks, from model.json."""


def pool(protocol: Protocol, arm: str, *, options: Mapping[str, Any]) -> None:
    """Write the pooled predictions of an arm and their record, unless they are current.

    Args:
        protocol: the plan.
        arm: which of its arms.
        options: what the heads were asked for; goes into the record.

    Raises:
        BadArtifact: a part's predictions are damaged, or their heads or classes are not those of the first part.
        StaleInput: a part's predictions are not of this plan's tiles.
    """
    parts = [part for part in protocol.parts if part.arm == arm]
    files = [protocol.folder(part) / "predictions.csv" for part in parts]
    out = protocol.predictions(arm)
    seed = protocol.seeds[0]
    current: dict[str, Any] = {"schema": predictions.SCHEMA, "options": options, "inputs": files, "seed": seed}
    found = []
    for part, path in zip(parts, files, strict=True):
        check_part(protocol, part)
        record = records.check_artifact(path, schema=predictions.SCHEMA)
        records.check_fresh(path, record)
        found.append(record["details"])
    if records.is_current(out, **current):
        return
    tables = [predictions.read_predictions(path) for path in files]
    for path, table in zip(files, tables, strict=True):
        same = list(table.columns) == list(tables[0].columns)
        if not same or list(table["head"].unique()) != list(tables[0]["head"].unique()):
            raise BadArtifact(f"{path}: its heads or classes are not those of {files[0]}: run fit_heads --restart")
    by_fold: dict[tuple[int, int], list[pd.DataFrame]] = {}
    for part, table in zip(parts, tables, strict=True):
        by_fold.setdefault((part.seed, part.fold), []).append(table[table["split"] == "test"])
    pooled = pd.concat([mean_of(group, seed=key[0], fold=key[1]) for key, group in by_fold.items()])
    pooled = pooled.sort_values(
        "head", key=lambda names: names.map(list(tables[0]["head"].unique()).index), kind="stable"
    )
    artifacts.write_text(out, pooled.to_csv(index=False, float_format="%.9g", lineterminator="\n"))
    summary = []
    if arm == protocol.main_arm:
        contents = [json.loads((path.parent / "heads" / "heads.json").read_text()) for path in files]
        networks = [json.loads((path.parent / "model.json").read_text()) for path in files]
        training = typical([{name: network[name] for name in NETWORK_FACTS} for network in networks])
        summary.append(out.with_name("heads") / "heads.json")
        artifacts.write_text(summary[0], artifacts.to_json(summary_of(contents) | {"training": training}))
    shared = {name: found[0][name] for name in ("dataset", "credit", "fit_on", "calibrated_on")}
    records.write_record(
        out,
        **current,
        stage="fit_heads",
        outputs=summary,
        details=shared
        | {
            "protocol": protocol.protocol if arm == protocol.main_arm else arm,
            "fit_on": "crossfit" if protocol.n_inner else shared["fit_on"],
            "n_folds": protocol.n_folds,
            "seeds": protocol.seeds,
            "n_inner": protocol.n_inner,
            "n_train": float(np.mean([details["n_train"] for details in found])),
            "n_skipped": max(details["n_skipped"] for details in found),
        },
    )


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
    classes = np.array(predictions.classes_of(first), dtype=object)
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
        heads[name] = typical([{k: v for k, v in entry.items() if k not in ("search", "notes")} for entry in facts])
        heads[name].get("calibration", {}).pop("params", None)
    rest = {name: typical([content[name] for content in contents]) for name in ("source_probe", "separability")}
    return {"classes": contents[0]["classes"], "n_parts": len(contents), "heads": heads, **rest}


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
