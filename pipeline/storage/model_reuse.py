"""Networks that one run takes over from another, prepared alike, in place of training the same ones again."""

import shutil
from pathlib import Path

from pipeline.errors import StaleInput
from pipeline.storage import atomic, records
from pipeline.storage.protocol import read_protocol

MODEL = "model.safetensors"


def network_folders(run: Path) -> list[tuple[Path, int | None]]:
    """Return the folders of a run's networks, relative to it, each with the seed of its part (None: the run's own).

    Raises:
        BadArtifact: the plan is not the one that `prepare` wrote.
    """
    protocol = read_protocol(run)
    if protocol is None:
        return [(Path(), None)]
    return [(protocol.folder(part).relative_to(run), part.seed) for part in protocol.parts]


def take_over(source: Path, target: Path) -> None:
    """Copy the networks of one run, with their records, into another that lacks some of them.

    Another process may work on the source, and even train it anew: what is copied must be what one record says, which
    is written last. Files without it count as not there.

    Raises:
        BadArtifact: the source has no whole network.
        StaleInput: the network changed, or was removed, while it was copied.
    """
    for part, _ in network_folders(target):
        theirs, ours = source / part / MODEL, target / part / MODEL
        if records.record_path(ours).is_file():
            continue
        try:
            is_same = _copied(theirs, ours)
        except FileNotFoundError:  # its folder is being removed, or it was begun anew
            is_same = False
        if not is_same:
            raise StaleInput(f"{theirs}: changed while it was copied: give the same command again")
        (ours.parent / "checkpoint.pt").unlink(missing_ok=True)  # of a training that is no longer needed


def _copied(theirs: Path, ours: Path) -> bool:
    """Copy a model with its companions and, if all are what its record says, the record; tell whether they were."""
    kept = records.record_path(theirs).read_bytes()
    record = records.read_record(theirs)
    for name, expected in (record["outputs"] | {MODEL: record["sha256"]}).items():
        with atomic.atomic(ours.parent / name) as temporary:
            shutil.copyfile(theirs.parent / name, temporary)
            if atomic.sha256_file(temporary) != expected:
                return False
    if records.record_path(theirs).read_bytes() != kept:
        return False
    atomic.write_bytes(records.record_path(ours), kept)
    return True
