"""P5: no name and no link leads a write out of the run folder, or a read out of the image root.

Names in archives: tests/tiles/test_unpack.py. Broken lines and characters in a CSV file: tests/tiles/test_datasets.py.
"""

import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline import prepare, train, verify
from pipeline.comparison.run_files import optional_files
from pipeline.errors import BadArtifact, PipelineError
from pipeline.names import RunFile
from pipeline.storage import atomic as artifacts
from pipeline.storage import freshness, records
from pipeline.storage.atomic import atomic, remove_temporaries
from pipeline.storage.embeddings.partial_rows import PartialRows, row_type
from pipeline.storage.lock import locked
from pipeline.storage.protocol import PartEntry, Protocol, check_part, read_protocol, write_protocol
from pipeline.tiles.datasets.sources import csv_tiles
from pipeline.tiles.datasets.unzip import unpack_zip
from pipeline.tiles.manifest import COLUMNS, SCHEMA, is_below, read_manifest

from .hostile import names_in, refused, vouch

STRANGE_NAMES = [
    "../up.png",
    "../../../../../../../../etc/passwd",
    "/etc/hosts",
    "//etc/hostname",
    "sub/../../down.png",
    "C:\\Windows\\win.ini",
    "C:/Windows/win.ini",
    "\\\\host\\share\\x.png",
    "..\\..\\up.png",
    "a/" * 200 + "deep.png",
    "n" * 300 + ".png",
    "e\u0301.png",
    "\u202egnp.exe",
    "-rf",
    "--run=x",
    "~/x.png",
    "$(mkdir marker)",
    "`mkdir marker`.png",
    ";mkdir marker;.png",
    "%00.png",
    "CON.png",
    " .png",
    "http://e.example/x.png",
    "file:///etc/passwd",
]


def listing(folder: Path, names: list[str]) -> Path:
    """Write a CSV file of tiles, with four good ones of two classes."""
    rng = np.random.default_rng(0)
    for i in range(4):
        pixels = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"good{i}.png")
    rows = [(f"good{i}.png", "AB"[i % 2], f"g{i}", ("train", "train", "val", "test")[i]) for i in range(4)]
    rows += [(name, "A", "g0", "train") for name in names]
    table = pd.DataFrame(rows, columns=["path", "label", "group", "split"])
    table.to_csv(folder / "tiles.csv", index=False)
    return folder / "tiles.csv"


@pytest.mark.fault("names that climb, lead elsewhere, or are no text")
def test_strange_names_in_a_csv_are_unreadable_tiles_and_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are paths, whatever they look like: opened for reading or not there."""
    monkeypatch.chdir(tmp_path)
    place = tmp_path / "in" / "it"
    place.mkdir(parents=True)
    file = listing(place, STRANGE_NAMES)
    before = names_in(tmp_path)
    words = ["--run", str(tmp_path / "run"), "--data", str(file), "--max-bad", "1", "--workers", "1"]
    assert prepare.main(words) == 3
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert f"{len(STRANGE_NAMES)} unreadable tile(s) left out" in said
    assert all(name.split("/")[0] == "run" for name in names_in(tmp_path) - before)
    assert not (tmp_path / "run" / "marker").exists()
    manifest = read_manifest(tmp_path / "run" / "manifest.csv")
    assert len(manifest.readable) == 4
    assert all(is_below(name) for name in manifest.table["path"])


@pytest.mark.fault("names that climb, lead elsewhere, or are no text")
@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(st.text("ab./\\ -:~é", min_size=1, max_size=12), min_size=1, max_size=5))
def test_every_path_of_a_csv_becomes_one_below_its_root(
    tmp_path_factory: pytest.TempPathFactory, names: list[str]
) -> None:
    folder = tmp_path_factory.getbasetemp() / "csv"
    folder.mkdir(exist_ok=True)
    names = [name.strip() for name in names]  # blanks around a cell do not count
    assume(all(names))
    meant = {os.path.realpath(os.path.join(folder, name)) for name in names}  # noqa: PTH118 -- as a user means it
    assume(len(meant) == len(names))
    pd.DataFrame({"path": names, "label": "A"}).to_csv(folder / "tiles.csv", index=False)
    tiles = csv_tiles(folder / "tiles.csv", group_regex="")
    assert all(is_below(name) for name in tiles.table["path"])
    assert {os.path.realpath(tiles.root / name) for name in tiles.table["path"]} == meant


def test_paths_above_the_current_folder_are_below_the_root_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    Path("tiles.csv").write_text("path,label\n../a.png,A\nb.png,B\n")
    tiles = csv_tiles(Path("tiles.csv"), group_regex="")
    assert (tiles.root, list(tiles.table["path"])) == (tmp_path, ["a.png", "here/b.png"])


# -- manifest.csv and protocol.json --------------------------------------------------------------------------------

DETAILS = {"root": ".", "dataset": "x", "protocol": "random"}


def manifest_with(folder: Path, details: dict[str, Any] | None = None, **cells: str) -> Path:
    """Write a manifest of one tile with a record that vouches for it."""
    row = dict.fromkeys(COLUMNS, "x") | {"split": "test", "width": "1", "height": "1", "problem": ""} | cells
    path = folder / "manifest.csv"
    pd.DataFrame([row]).to_csv(path, index=False)
    return vouch(path, SCHEMA, stage="prepare", details=DETAILS if details is None else details)


@pytest.mark.fault("names that climb, lead elsewhere, or are no text")
@pytest.mark.parametrize("name", ["../x.png", "/etc/passwd", "a/../../x.png", "//x", ".."])
def test_a_manifest_that_leads_out_of_its_root(tmp_path: Path, name: str) -> None:
    refused(BadArtifact, "leads out of the image root", read_manifest, manifest_with(tmp_path, path=name))


@pytest.mark.parametrize(
    ("cells", "rule"),
    [
        ({"width": "x"}, "width"),
        ({"width": "-1"}, "width"),
        ({"height": "9" * 400}, "height"),
        ({"height": "٣"}, "height"),
        ({"width": "nan"}, "width"),
    ],
)
def test_a_manifest_with_numbers_that_are_none(tmp_path: Path, cells: dict[str, str], rule: str) -> None:
    refused(BadArtifact, f"a {rule} is not a number of px", read_manifest, manifest_with(tmp_path, **cells))


@pytest.mark.parametrize(
    "details",
    [{}, {"root": 3, "dataset": "x", "protocol": "random"}, {"root": ".", "dataset": ["x"], "protocol": "random"}],
)
def test_a_manifest_whose_record_lacks_what_is_needed(tmp_path: Path, details: dict[str, Any]) -> None:
    refused(BadArtifact, "its record does not name", read_manifest, manifest_with(tmp_path, details))


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b'"', b"a,b\n1\n1,2,3\n", b"\0" * 100])
def test_a_manifest_that_is_no_table(tmp_path: Path, content: bytes) -> None:
    path = manifest_with(tmp_path)
    path.write_bytes(content)
    vouch(path, SCHEMA, stage="prepare", details=DETAILS)
    refused(BadArtifact, r"manifest\.csv", read_manifest, path)


def plan(run: Path, **change: Any) -> Path:
    """Write a run folder whose plan has one part, changed; its manifest.csv vouches for it."""
    run.mkdir(exist_ok=True)
    entry = PartEntry("grouped-seed0-fold0", "grouped", 0, 0, None, "0" * 64, {"test": 1}, ["g"], {})
    path = write_protocol(Protocol(run, "grouped", 2, [0], 0, [entry]))
    content = json.loads(path.read_text())
    content["parts"][0] |= {key: value for key, value in change.items() if key in content["parts"][0]}
    content |= {key: value for key, value in change.items() if key in content}
    path.write_text(json.dumps(content))
    vouch(manifest_with(run), SCHEMA, stage="prepare", details=DETAILS, outputs=[path])
    return run


def test_a_plan_as_it_is_written_is_read(tmp_path: Path) -> None:
    found = read_protocol(plan(tmp_path / "run"))
    assert found is not None
    assert found.folder(found.parts[0]) == tmp_path / "run" / "parts" / "grouped-seed0-fold0"


@pytest.mark.parametrize(
    "change",
    [
        {"name": "../../other"},
        {"name": "/tmp/other"},
        {"name": "grouped-seed0-fold0/../../../other"},
        {"name": "grouped-seed0-fold0\n"},
        {"name": 7},
        {"arm": "x/../../../../tmp/evil"},
        {"arm": ["grouped"]},
        {"seed": "0"},
        {"inner": "x"},
        {"manifest_sha256": None},
        {"n": [1]},
        {"n": {"test": "many"}},
        {"test_groups": "g"},
        {"absent": {"val": "A"}},
        {"parts": []},
        {"parts": {}},
        {"parts": [{"name": "grouped-seed0-fold0"}]},
        {"folds": "2"},
        {"seeds": []},
        {"seeds": "01"},
        {"protocol": None},
    ],
)
def test_a_plan_that_leads_elsewhere_or_is_none(tmp_path: Path, change: dict[str, Any]) -> None:
    refused(BadArtifact, r"protocol\.json: its content is not what", read_protocol, plan(tmp_path / "run", **change))


@pytest.mark.parametrize("content", [b"", b"{", b"[" * 100_000, b"\xff", b"[]", b"9" * 10_000])
def test_a_plan_that_is_no_json(tmp_path: Path, content: bytes) -> None:
    run = plan(tmp_path / "run")
    (run / RunFile.PROTOCOL).write_bytes(content)
    vouch(run / "manifest.csv", SCHEMA, stage="prepare", details=DETAILS, outputs=[run / RunFile.PROTOCOL])
    refused(BadArtifact, r"protocol\.json", read_protocol, run)


# -- links in a run folder, which archives and clones bring along ----------------------------------------------------


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder of the user's with a file, which must stay as it is."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "letter.txt").write_text("dear")
    return tmp_path / "outside"


def untouched(outside: Path) -> bool:
    return names_in(outside) == {"letter.txt"} and (outside / "letter.txt").read_text() == "dear"


def test_a_lock_that_is_a_link(tmp_path: Path, outside: Path) -> None:
    """The lock's content is overwritten with pid and host."""
    run = tmp_path / "run"
    run.mkdir()
    (run / ".lock").symlink_to(outside / "letter.txt")
    with pytest.raises(BadArtifact, match=r"\.lock: a link"), locked(run):
        pass
    assert untouched(outside)
    (run / ".lock").unlink()
    (run / ".lock").symlink_to(outside / "new")
    with pytest.raises(BadArtifact, match=r"\.lock: a link"), locked(run):
        pass
    assert untouched(outside)


@pytest.mark.fault("names that climb, lead elsewhere, or are no text")
@pytest.mark.parametrize("header", [True, False])
def test_a_scratch_that_is_a_link(tmp_path: Path, outside: Path, header: bool) -> None:
    """Rows are cut to whole batches and appended to: a letter would be emptied."""
    scratch = PartialRows(tmp_path / "e.h5", row=row_type(2, 2), identity={"a": 1}, batch=2)
    scratch.path.symlink_to(outside / "letter.txt")
    if header:
        artifacts.write_text(scratch.header, artifacts.to_json(scratch.identity))
    refused(BadArtifact, "a link", scratch.open, restart=False)
    assert untouched(outside)


@pytest.mark.fault("names that climb, lead elsewhere, or are no text")
@pytest.mark.parametrize("name", ["figures", "heads"])
def test_a_folder_of_the_run_that_is_a_link(tmp_path: Path, outside: Path, name: str) -> None:
    (outside / ".x.png.abcdefgh.tmp").write_text("another program's")
    (tmp_path / name).symlink_to(outside)

    def write() -> None:
        with atomic(tmp_path / name / "x.png") as temporary:
            temporary.write_text("x")

    refused(BadArtifact, f"{name}: a link", write)
    remove_temporaries(tmp_path)
    assert names_in(outside) == {"letter.txt", ".x.png.abcdefgh.tmp"}


def test_a_result_that_is_a_link_is_replaced_not_followed(tmp_path: Path, outside: Path) -> None:
    (tmp_path / "comparison.md").symlink_to(outside / "letter.txt")
    artifacts.write_text(tmp_path / "comparison.md", "report")
    assert untouched(outside)
    assert not (tmp_path / "comparison.md").is_symlink()


@pytest.mark.parametrize("place", ["parts", "parts/grouped-seed0-fold0"])
def test_a_part_of_a_plan_that_is_a_link(tmp_path: Path, outside: Path, place: str) -> None:
    run = plan(tmp_path / "run")
    (run / place).parent.mkdir(exist_ok=True)
    (run / place).symlink_to(outside)
    found = read_protocol(run)
    assert found is not None
    refused(BadArtifact, "a link", check_part, found, found.parts[0])
    assert verify.main(["--run", str(run)]) == 1
    assert untouched(outside)


def test_a_run_folder_that_is_a_link_is_the_users_own(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "disk")
    with locked(tmp_path / "run"), atomic(tmp_path / "run" / "figures" / "x.png") as temporary:
        temporary.write_text("x")
    assert (tmp_path / "disk" / "figures" / "x.png").is_file()


def test_a_figure_that_is_a_link_does_not_get_into_the_report(tmp_path: Path, outside: Path) -> None:
    """The report is passed on, and holds copies of the figures."""
    (tmp_path / "figures").mkdir()
    for name in ("history.png", "classes.png"):
        (tmp_path / "figures" / name).symlink_to(outside / "letter.txt")
    (tmp_path / "figures" / "batch.png").write_bytes(b"png")
    assert optional_files(tmp_path, pixels=True, embeddings=False) == [tmp_path / "figures" / "batch.png"]


def test_commands_say_it_in_one_line(
    prepared_run: Path, outside: Path, capsys: pytest.CaptureFixture[str], words: Callable[..., list[str]]
) -> None:
    (prepared_run / ".lock").unlink(missing_ok=True)
    (prepared_run / ".lock").symlink_to(outside / "letter.txt")
    assert train.main(words("train", prepared_run)) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert ".lock: a link" in said
    assert untouched(outside)


# -- records ---------------------------------------------------------------------------------------------------------


def forge(path: Path, **change: Any) -> Path:
    """Change a record and make its own hash fit again."""
    record = records.read_record_alone(path) | change
    record = {key: value for key, value in record.items() if value is not ...}
    text = artifacts.to_json(record)
    whole = record | {"record_sha256": records.hashlib.sha256(text.encode()).hexdigest()}
    artifacts.write_text(records.record_path(path), artifacts.to_json(whole))
    return path


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    """A file with a good record."""
    (tmp_path / "a.csv").write_text("a\n")
    return vouch(tmp_path / "a.csv", "thing/1.0", stage="prepare")


def test_a_forged_record_that_fits_is_read(recorded: Path) -> None:
    forge(recorded, details={"x": 1})
    assert records.check_artifact(recorded, schema="thing/1.0")["details"] == {"x": 1}


@pytest.mark.parametrize("name", records.CONTENT)
@pytest.mark.parametrize("value", [..., [], 1.5, True])
def test_a_record_without_what_readers_rely_on(recorded: Path, name: str, value: object) -> None:
    if (name, value) != ("seed", True):  # a bool is a number
        refused(BadArtifact, "damaged or was edited", records.read_record, forge(recorded, **{name: value}))


@pytest.mark.parametrize(
    "change", [{"inputs": {"b": 1}}, {"outputs": {"b": None}}, {"stage": "x`; rm -rf ~ #"}, {"stage": ""}]
)
def test_a_record_whose_words_would_be_followed(recorded: Path, change: dict[str, Any]) -> None:
    """Messages advise to run `python -m pipeline.<stage>`."""
    refused(BadArtifact, "damaged or was edited", records.read_record, forge(recorded, **change))


def test_records_that_name_each_other_come_to_an_end(tmp_path: Path) -> None:
    """Hashes are of the files, not of their records: two files can each be made from the other."""
    paths = [tmp_path / f"{i}.csv" for i in range(12)]
    for path in paths:
        path.write_text("x")
    for path in paths:
        vouch(path, "thing/1.0", inputs=paths)  # itself too; by every way there are more than 11! walks
    freshness.check_inputs_unchanged(paths[0], records.read_record(paths[0]))


def test_a_chain_of_a_thousand_records(tmp_path: Path) -> None:
    before: list[Path] = []
    for i in range(1100):
        path = tmp_path / f"{i}.csv"
        path.write_text("x")
        text = {"schema": "t/1.0", "stage": "prepare", "sha256": records.sha256_file(path), "outputs": {}}
        inputs = {last.name: records.sha256_file(last) for last in before}
        record = {**text, "inputs": inputs, "options": {}, "details": {}, "seed": None}
        whole = record | {"record_sha256": records.hashlib.sha256(artifacts.to_json(record).encode()).hexdigest()}
        records.record_path(path).write_text(artifacts.to_json(whole))
        before = [path]
    freshness.check_inputs_unchanged(before[0], records.read_record(before[0]))


# -- archives --------------------------------------------------------------------------------------------------------


@pytest.mark.fault("names that climb, lead elsewhere, or are no text")
@pytest.mark.parametrize("name", ["n" * 300 + ".tif", "a/" * 3000 + "x.tif", "é" * 200 + ".tif"])
def test_names_no_file_system_takes_leave_nothing(tmp_path: Path, name: str) -> None:
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        archive.writestr("good.tif", b"x")
        archive.writestr(name, b"x")
    refused(PipelineError, ".", unpack_zip, tmp_path / "set.zip", tmp_path / "out", max_bytes=10**6, max_files=10)
    assert names_in(tmp_path) == {"set.zip"}


@pytest.mark.fault("an archive handed as data")
def test_a_run_in_an_archive_is_not_unpacked_for_its_user(tmp_path: Path) -> None:
    """What is given as tiles must be a folder or a CSV file: archives are unpacked for kather2016 only, by its hash."""
    with zipfile.ZipFile(tmp_path / "tiles.zip", "w") as archive:
        archive.writestr("../evil.png", b"x")
    assert prepare.main(["--run", str(tmp_path / "run"), "--data", str(tmp_path / "tiles.zip")]) == 1
    words = ["--data", "kather2016", "--source", str(tmp_path / "tiles.zip"), "--data-dir", str(tmp_path / "data")]
    assert prepare.main(["--run", str(tmp_path / "run"), *words]) == 1
    assert not (tmp_path / "evil.png").exists()
    assert not (tmp_path.parent / "evil.png").exists()
