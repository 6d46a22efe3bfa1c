"""Take the rows of a plan's part from another part that embedded the same tiles by the same network."""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from pipeline.errors import BadArtifact, PipelineError
from pipeline.network.extraction.run import ExtractionJob, ExtractionSettings
from pipeline.network.preprocess import preprocess_of
from pipeline.runtime.console import log
from pipeline.storage import atomic, environment, records
from pipeline.storage.embeddings.merge import ATTRS
from pipeline.storage.embeddings.partial_rows import row_type
from pipeline.storage.embeddings.reader import OK, SCHEMA, Embeddings, feature_blocks, read_embeddings
from pipeline.storage.embeddings.writer import write_embeddings


class CopiedRows:
    """The rows of a finished embeddings file, for `write_embeddings`.

    Args:
        path: the file.
        content: of the file, without features.
    """

    def __init__(self, path: Path, content: Embeddings) -> None:
        self.path, self.content = path, content
        width = next(feature_blocks(path, content.status)).shape[1]
        self.row = row_type(width, content.logits.shape[1])

    def blocks(self) -> Iterator[np.ndarray]:
        """Yield all rows in order, not all at once (`writer.Rows`)."""
        start = 0
        for features in feature_blocks(self.path, self.content.status):
            part = slice(start, start + len(features))
            rows = np.zeros(len(features), self.row)
            rows["features"], rows["logits"] = features, self.content.logits[part]
            rows["sha256"], rows["status"] = self.content.sha256[part], self.content.status[part]
            start += len(features)
            yield rows


def with_source(artifact: records.Artifact) -> records.Artifact:
    """Return an embeddings file with the file of another part as one more input, if its rows were copied from it.

    A source that is no longer there counts as unchanged.
    """
    try:
        recorded = records.read_record_alone(artifact.path)["inputs"]
    except BadArtifact:
        return artifact
    sources = {artifact.path.parent / name: digest for name, digest in recorded.items() if name.endswith(".h5")}
    known = {path: atomic.sha256_file(path) if path.is_file() else digest for path, digest in sources.items()}
    return dataclasses.replace(artifact, inputs=[*artifact.inputs, *sources], known={**artifact.known, **known})


def take_rows(job: ExtractionJob, files: Sequence[Path], settings: ExtractionSettings) -> dict[str, str] | None:
    """Write the embeddings file of a job with the rows of another file; return None if no file has these rows.

    The rows do not depend on the split: a frozen encoder has the same file in every part of a plan. A trained network
    has not, so that nothing is taken.

    Args:
        job: the tiles, the network and the file.
        files: embeddings files of other parts.
        settings: how the rows would be computed.

    Returns:
        tile_id -> problem of each tile that could not be used.
    """
    for path in files:
        if path != job.artifact.path and (found := _same_rows(job, path, settings)) is not None:
            content, record = found
            attrs = {name: content.attrs[name] for name in ATTRS if name in content.attrs}
            copied = CopiedRows(path, content)
            write_embeddings(
                job.artifact.path,
                copied,
                job.table,
                attrs=attrs | {"manifest_sha256": job.artifact.known[job.tile_list]},
                dtype=str(job.artifact.options["dtype"]),
            )
            part = path.parent.name
            details = {**record["details"], **job.details, "rows_of": part}
            known = {**job.artifact.known, path: record["sha256"]}
            artifact = dataclasses.replace(job.artifact, inputs=[*job.artifact.inputs, path], known=known)
            records.write_record(artifact, outputs=job.outputs, details=details, device=str(settings.device))
            log.info(
                f"extract: {len(job.table)} rows of {copied.row['features'].shape[0]} features are those of {part}"
            )
            return dict(details["skipped"])
    return None


def _same_rows(
    job: ExtractionJob, path: Path, settings: ExtractionSettings
) -> tuple[Embeddings, records.Record] | None:
    """Return the content of a file and its record if the file was computed, and its rows are those of the job."""
    options = dict(job.artifact.options)
    if "shard" in options or options["embed_precision"] == "int8":  # int8 is calibrated on the training tiles
        return None
    try:
        record = records.read_record_alone(path)
        details = record["details"]
        same_way = record["options"] == options and record["device"] == str(settings.device)
        same_way = same_way and details.get("threads") == torch.get_num_threads()  # sums may depend on their number
        if not same_way or "rows_of" in details or len(details["skipped"]) > settings.max_bad * len(job.table):
            return None
        if job.artifact.known[job.model_file] not in record["inputs"].values():
            return None
        records.check_artifact(path, schema=SCHEMA)
        content = read_embeddings(path, with_features=False)
    except PipelineError:
        return None  # the part is unfinished or damaged; its own command reports that
    made_by = content.attrs["versions"].items() >= environment.versions().items()
    if not made_by or preprocess_of(content.attrs["preprocess"]) != job.model.preprocess:
        return None
    table, is_read = job.table, content.status == OK
    if list(table["tile_id"]) != content.tile_id:
        return None
    hashes = np.array([bytes(each).hex() for each in content.sha256], object)
    if (table["sha256"].to_numpy(object)[is_read] != hashes[is_read]).any():
        return None
    return content, record
