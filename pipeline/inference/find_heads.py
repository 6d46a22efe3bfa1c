"""Find the saved heads of a run, or of the part of its plan whose network made some embeddings."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pipeline.errors import BadInput, StaleInput
from pipeline.heads.rows import EMBEDDINGS, stored_sets
from pipeline.inference.saved_heads import EmbeddedBy, SavedHeads, embeddings_record, load_heads, read_summary
from pipeline.names import FILES, FUSED, MAIN, REFERENCES, RunFile
from pipeline.runtime.console import log
from pipeline.storage import freshness, records
from pipeline.storage.predictions.csv_table import SCHEMA
from pipeline.storage.protocol import FOLDER, check_part, read_protocol


def _reference(summary: Mapping[str, Any]) -> list[str]:
    """Return the head that others are compared with: the first of `REFERENCES` that a run has."""
    return [name for name in REFERENCES if name in summary["heads"]][:1] or [REFERENCES[0]]


def folder_of_network(run: Path, network: EmbeddedBy) -> Path:
    """Return the folder with the network that made some embeddings: the run's own, or that of a part of its plan.

    Raises:
        StaleInput: the plan has no such network.
    """
    protocol = read_protocol(run)
    if protocol is None:
        return run
    for part in protocol.parts:
        path = protocol.folder(part) / RunFile.MODEL
        if records.record_path(path).is_file() and records.read_record_alone(path)["sha256"] == network.sha256:
            check_part(protocol, part)
            return path.parent
    raise StaleInput(
        f"{network.subject} was embedded by the network {network.sha256[:12]}, that of none of the "
        f"{len(protocol.parts)} parts of {run}: {network.remedy}"
    )


def read_heads(
    run: Path, head: str, network: EmbeddedBy, *, force: bool, no_pixels: Callable[[], str] = str
) -> SavedHeads:
    """Load a head of a run or part, or all, for embeddings by a network.

    Args:
        run: the folder.
        head: a name, "auto" for the reference, or "all".
        network: network of the embeddings to predict.
        force: use heads although one of their inputs has changed.
        no_pixels: returns why colours and texture cannot be measured, or "": "all" then omits fused heads.

    Raises:
        BadInput: the run has no head of that name.
        BadArtifact: a file is missing or damaged.
        StaleInput: the heads were fitted on embeddings of another network, or one of their inputs has changed.
    """
    path = records.existing_table(run / RunFile.PREDICTIONS)
    record = records.check_artifact(path, schema=SCHEMA)
    embedded = embeddings_record(run, record, network)
    if not force:
        freshness.check_inputs_unchanged(path, record)
    summary = read_summary(run, record)
    all_names = [name for name in MAIN if name in summary["heads"]]
    fused = [name for name in all_names if name in FUSED]
    if head == "all" and fused and (why := no_pixels()):
        log.warning(f"predict: {', '.join(fused)} are left out: {why}")
        all_names = [name for name in all_names if name not in FUSED]
    names = {"all": all_names, "auto": _reference(summary)}.get(head, [head])
    return load_heads(run, summary, names, record=record, embedded=embedded)


def read_saved_head(run: Path, head: str) -> SavedHeads:
    """Load a head of a run or part that predicts from the features of single tiles, whatever made them.

    Args:
        run: the folder.
        head: a name, or "auto" for the first one that the run has.

    Raises:
        BadInput: the run has no head of that name, or the head needs logits, or other tiles of the group.
        BadArtifact: a file is missing or damaged.
        StaleInput: an input of the heads has changed.
    """
    if read_protocol(run) is not None:
        raise BadInput(f"{run} is a plan, each part has heads of its own: give a folder in {run / FOLDER}")
    path = records.existing_table(run / RunFile.PREDICTIONS)
    record = freshness.checked_record(path, schema=SCHEMA, force=False)
    summary = read_summary(run, record)
    usable = [name for name in FILES if name in summary["heads"] and stored_sets(name) == (EMBEDDINGS,)]
    if head == "auto" and usable:
        head = usable[0]
    if head not in usable:
        raise BadInput(f"{run}: no head '{head}' that takes features alone, only {', '.join(usable) or 'none'}")
    if summary.get("relative") is not None:
        raise BadInput(f"{run}: its heads take features relative to the group (--relative group): use `predict`")
    inputs = [run / name for name in record["inputs"] if name.endswith(".h5") and Path(name).name != RunFile.BASELINES]
    embedded = next((each for each in inputs if records.record_path(each).is_file()), None)
    made: Mapping[str, Any] = {"options": {}} if embedded is None else records.read_record_alone(embedded)
    return load_heads(run, summary, [head], record=record, embedded=made)
