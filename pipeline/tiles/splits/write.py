"""Write the parts of a plan as run folders, and remove what another plan left."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.names import RunFile
from pipeline.runtime.console import log
from pipeline.storage import atomic, records
from pipeline.storage.protocol import Protocol, write_protocol
from pipeline.tiles.audit.source_colours import colour_share
from pipeline.tiles.manifest import write_manifest
from pipeline.tiles.splits.cross_validation import SplitPlan


def write_parts(
    run: Path,
    table: pd.DataFrame,
    plan: SplitPlan,
    *,
    root: Path,
    options: Mapping[str, Any],
    details: Mapping[str, Any],
    quality: pd.DataFrame,
) -> Path:
    """Write the manifest of every part and then protocol.json; return its path.

    Args:
        run: the run folder of the plan.
        table: manifest columns; the split is that of the part.
        plan: its parts hold the split of each readable tile.
        root: folder that the tiles' paths are relative to.
        options: resolved options of `prepare`.
        details: facts for later stages.
        quality: `Measurements.quality` of the same tiles.
    """
    n_inner = len({part.inner for part in plan.parts} - {None})
    seeds = sorted({part.seed for part in plan.parts})
    protocol = Protocol(run, plan.protocol, plan.n_folds, seeds, n_inner, [])
    good = table["problem"] == ""
    for part in plan.parts:
        entry = part.entry(table[good])
        own = table.copy()
        own.loc[good, "split"] = part.split
        path = protocol.folder(entry) / RunFile.MANIFEST
        arm = plan.protocol if part.arm == "given" else part.arm
        facts = {**details, "protocol": arm, "plan": "../..", "source_colours": training_colours(own, quality)}
        write_manifest(path, own, root=root, options=options, details=facts, outputs=[], seed=part.seed)
        protocol.parts.append(dataclasses.replace(entry, manifest_sha256=atomic.sha256_file(path)))
    for name, classes in sorted({(name, tuple(c)) for part in protocol.parts for name, c in part.absent.items()}):
        n = sum(list(classes) == part.absent.get(name) for part in protocol.parts)
        log.warning(f"prepare: {name} holds no tile of {', '.join(classes)} in {n} of {len(protocol.parts)} parts")
    return write_protocol(protocol)


def training_colours(table: pd.DataFrame, quality: pd.DataFrame) -> float | None:
    """Return `colour_share` of the training tiles of a manifest's table; `quality` is of the same tiles."""
    rows = (table["split"] == "train").to_numpy()
    return colour_share(table["label"][rows], table["group"][rows], quality[rows])


def remove_other_plans(run: Path, plan: SplitPlan) -> None:
    """Remove the plan, and the pooled results, that this split does not have; folders of parts stay for the user."""
    stale = [run / RunFile.PROTOCOL] if plan.is_single else []
    if len({part.arm for part in plan.parts}) < 2:
        for suffix in (".csv", ".parquet"):
            pooled = (run / RunFile.RANDOM_CONTROL).with_suffix(suffix)
            stale += [pooled, records.record_path(pooled)]
    for path in stale:
        path.unlink(missing_ok=True)
