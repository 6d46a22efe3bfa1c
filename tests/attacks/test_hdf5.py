"""HDF5 files from a stranger: what they claim is not believed, and they lead nowhere else.

Single broken rules, links, virtual and external data sets: tests/storage/test_embeddings.py and test_hdf5.py.
"""

import os
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from pipeline.errors import BadArtifact
from pipeline.storage.embeddings.reader import read_embeddings
from pipeline.storage.hdf5 import write_attributes

from .hostile import in_own_process, needs_proc, refused

Change = Callable[[h5py.File], object]
Make = Callable[[Change], Path]
N, D = 6, 4


def huge_chunk(file: h5py.File) -> None:
    """Six rows in a chunk of 400 MB, which is inflated as a whole when one of them is read."""
    del file["features"]
    shape = {"chunks": (10_000, 10_000), "maxshape": (None, None)}
    file.create_dataset("features", (N, D), "<f4", **shape, compression="gzip")[:] = 1


def endless_virtual(file: h5py.File) -> None:
    """A data set whose extent is that of another file: a pipe, at which a reader would wait for ever."""
    del file["features"]
    pipe = Path(file.filename).with_name("pipe")
    os.mkfifo(pipe)
    layout = h5py.VirtualLayout((N, D), "<f4", maxshape=(None, D))
    layout[:] = h5py.VirtualSource(str(pipe), "features", (N, D))
    file.create_virtual_dataset("features", layout)


def unknown_filter(file: h5py.File) -> None:
    """A filter that only a plugin could provide."""
    data = file["features"][()]
    del file["features"]
    file.create_dataset("features", data=data, chunks=data.shape, compression="gzip")
    path = file.filename
    file.close()
    content = Path(path).read_bytes()
    name = content.index(b"deflate\0")  # the filter's number stands six bytes before its name
    Path(path).write_bytes(content[: name - 8] + b"\x02\x7d" + content[name - 6 :])


def attribute(name: str, value: object) -> Change:
    def change(file: h5py.File) -> None:
        if isinstance(value, str):
            write_attributes(file, {name: value})
        else:
            file.attrs[name] = value

    return change


def shared_text(file: h5py.File) -> None:
    """An attribute of 4000 texts that are one megabyte in the file, all the same one."""
    texts = ["x" * 1_000_000] + [""] * 3999
    file.attrs.create("more", texts, dtype=h5py.string_dtype())
    path = file.filename
    file.close()
    content = Path(path).read_bytes()
    at = content.index(struct.pack("<I", 1_000_000))  # length, address of the heap, number in it: 16 bytes for each
    Path(path).write_bytes(content[:at] + content[at : at + 16] * 4000 + content[at + 64_000 :])


def endless_heap(file: h5py.File) -> None:
    """A text of variable length in a heap with an entry of no length, at which the HDF5 library walks in place."""
    del file.attrs["classes"]
    file.attrs["classes"] = '["ADI", "TUM"]'
    path = file.filename
    file.close()
    content = bytearray(Path(path).read_bytes())
    entry = content.index(b"GCOL") + 16  # number, references, reserved, length
    content[entry : entry + 16] = bytes(16)
    Path(path).write_bytes(content)


ATTACKS: dict[str, tuple[Change, str]] = {
    "huge chunk": (huge_chunk, "/features claims 400000000 bytes, far more than the file has"),
    "waits for a pipe": (endless_virtual, "/features is not a data set of this file"),
    "unknown filter": (unknown_filter, "not a readable HDF5 file"),
    "list for a text": (attribute("features_sha256", ["a", "b"]), "'features_sha256' is missing or not text"),
    "number for a text": (attribute("model_sha256", 7), "'model_sha256' is missing or not text"),
    "nothing for a text": (attribute("layer", h5py.Empty("f")), "'layer' is missing or not text"),
    "record for a text": (attribute("layer", np.zeros(1, [("a", "i4")])), "'layer' is missing or not text"),
    "bytes that are no text": (attribute("layer", np.bytes_(b"\xff\xfe")), "not a readable HDF5 file"),
    "classes for ever": (attribute("classes", "[" * 60_000), "not a readable HDF5 file"),
    "complete is no flag": (attribute("complete", [True, True]), "complete"),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_a_hostile_file_is_refused(change_hdf5: Make, name: str) -> None:
    change, rule = ATTACKS[name]
    refused(BadArtifact, rule, read_embeddings, change_hdf5(change))


@needs_proc
def test_it_takes_no_more_memory_than_its_bytes_allow_and_comes_to_an_end(change_hdf5: Make, tmp_path: Path) -> None:
    files = []
    for name, change in (("chunk", huge_chunk), ("heap", endless_heap), ("attribute", shared_text)):
        files.append(tmp_path / f"{name}.h5")
        change_hdf5(change).rename(files[-1])
    chunk, heap, attribute = in_own_process(
        files, "read_embeddings(path)", imports="from pipeline.storage.embeddings.reader import read_embeddings"
    )
    assert chunk.said.startswith("BadArtifact")
    assert "'classes' is missing or not text" in heap.said
    assert attribute.said == "ok"  # no schema has it, so that it is not read
    assert max(chunk.peak_mb, attribute.peak_mb) < 60


def test_a_link_in_an_unknown_place_is_not_followed(change_hdf5: Make) -> None:
    """What the schema does not know is left alone: nobody opens the pipe."""

    def change(file: h5py.File) -> None:
        pipe = Path(file.filename).with_name("pipe")
        os.mkfifo(pipe)
        file["notes"] = h5py.ExternalLink(str(pipe), "/x")

    path = change_hdf5(change)
    code = "import sys; from pathlib import Path; from pipeline.storage.embeddings.reader import read_embeddings\n"
    code += "read_embeddings(Path(sys.argv[1]))"
    assert subprocess.run([sys.executable, "-c", code, str(path)], timeout=60, check=False).returncode == 0
