"""manifest.csv: what is written is what is read, and nothing else passes."""

import shutil
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pipeline.errors import BadArtifact, StaleInput
from pipeline.storage.freshness import check_inputs_unchanged
from pipeline.storage.records import Artifact, read_record, record_path, write_record
from pipeline.tiles.manifest import COLUMNS, SCHEMA, Manifest, is_below, read_manifest, tile_ids, write_manifest

HOSTILE = ["a, b", 'say "x"', "Zöllner 日本", "=1+1", "+SUM(A1)", " outer ", "NA", "007", "#", "'", "a\\b", "null", "-"]

DETAILS = {"dataset": "mine", "protocol": "grouped"}


def rows(labels: list[str]) -> pd.DataFrame:
    """One row per label; the last one could not be read."""
    paths = [f"{label}/tile {i}.png" for i, label in enumerate(labels)]
    table = pd.DataFrame({"tile_id": tile_ids(paths), "path": paths, "label": labels, "group": labels})
    table["split"] = [("train", "val", "test")[i % 3] for i in range(len(labels))]
    table["sha256"], table["width"], table["height"], table["problem"] = "ab" * 32, 150, 140, ""
    table.loc[len(labels) - 1, ["split", "sha256", "width", "height", "problem"]] = ["", "", 0, 0, "half, a file"]
    return table


def write(path: Path, table: pd.DataFrame, root: Path, **more: object) -> Manifest:
    write_manifest(path, table, root=root, options={"data": "x"}, details=DETAILS, outputs=[], seed=3, **more)  # type: ignore[arg-type]
    return read_manifest(path)


def test_round_trip_of_unusual_names(tmp_path: Path) -> None:
    table = rows(HOSTILE)
    manifest = write(tmp_path / "run" / "manifest.csv", table, tmp_path / "tiles")
    assert manifest.table.to_numpy().tolist() == table[list(COLUMNS)].to_numpy().tolist()
    assert manifest.table["width"].dtype == int
    assert list(manifest.table.index) == list(range(len(HOSTILE)))
    assert manifest.root.resolve() == tmp_path / "tiles"
    assert manifest.details["protocol"] == "grouped"
    assert manifest.classes == sorted(HOSTILE)
    assert len(manifest.readable) == len(HOSTILE) - 1


@pytest.mark.fault("names that climb, lead elsewhere, or are no text")
@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.lists(st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1), min_size=2, max_size=4))
def test_round_trip_of_any_text(tmp_path_factory: pytest.TempPathFactory, labels: list[str]) -> None:
    assume(all(is_below(label) for label in labels))  # `rows` makes paths of them
    folder = tmp_path_factory.mktemp("m")
    table = rows(labels)
    assert (
        write(folder / "manifest.csv", table, folder).table.astype(object).equals(table[list(COLUMNS)].astype(object))
    )


def test_equal_tables_are_equal_bytes(tmp_path: Path) -> None:
    """P6: no time and no path of this machine in the file."""
    for name in ("a", "b"):
        write(tmp_path / name / "manifest.csv", rows(["A", "B", "C"]), tmp_path / "tiles")
    assert (tmp_path / "a" / "manifest.csv").read_bytes() == (tmp_path / "b" / "manifest.csv").read_bytes()
    assert str(tmp_path) not in (tmp_path / "a" / "manifest.csv").read_text()


def test_a_run_moves_with_its_tiles(tmp_path: Path) -> None:
    write(tmp_path / "all" / "run" / "manifest.csv", rows(["A", "B"]), tmp_path / "all" / "tiles")
    shutil.move(tmp_path / "all", tmp_path / "moved")
    assert read_manifest(tmp_path / "moved" / "run" / "manifest.csv").root.resolve() == tmp_path / "moved" / "tiles"


def test_a_linked_run_folder_finds_its_tiles(tmp_path: Path) -> None:
    (tmp_path / "disk" / "deep" / "run").mkdir(parents=True)
    (tmp_path / "tiles").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "disk" / "deep" / "run")
    assert write(tmp_path / "run" / "manifest.csv", rows(["A", "B"]), tmp_path / "tiles").root.is_dir()


def test_a_damaged_or_edited_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "manifest.csv"
    write(path, rows(["A", "B", "A"]), tmp_path)
    whole = path.read_text()
    for changed in (whole.replace("train", "test"), whole[:-20], "", whole + "\n"):
        path.write_text(changed)
        with pytest.raises(BadArtifact, match=r"manifest\.csv: its bytes are not those that were written"):
            read_manifest(path)
    path.unlink()
    with pytest.raises(BadArtifact, match="not there"):
        read_manifest(path)


@pytest.mark.parametrize(
    ("old", "new", "pattern"),
    [
        ("tile_id,path", "tile,path", "columns"),
        (",train,", ",training,", "a split is not one of train, val, test"),
        (",train,", ",,", "a split is not one of"),
        ("B/tile 1,", "A/tile 0,", "a tile_id is there twice"),
    ],
)
def test_a_recorded_file_that_breaks_the_schema_is_refused(tmp_path: Path, old: str, new: str, pattern: str) -> None:
    path = tmp_path / "manifest.csv"
    write(path, rows(["A", "B", "A"]), tmp_path)
    path.write_text(path.read_text().replace(old, new))
    write_record(Artifact(path, SCHEMA, "prepare"), details={"root": ".", **DETAILS})
    with pytest.raises(BadArtifact, match=pattern) as caught:
        read_manifest(path)
    assert "\n" not in str(caught.value)


def test_another_kind_of_table_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "manifest.csv"
    write(path, rows(["A", "B"]), tmp_path)
    record_path(path).unlink()
    with pytest.raises(BadArtifact, match="record of manifest.csv is missing"):  # noqa: RUF043
        read_manifest(path)
    write_record(Artifact(path, "predictions/1.0", "fit_heads"))
    with pytest.raises(BadArtifact, match="manifest/1"):
        read_manifest(path)


def test_p8_a_changed_list_of_tiles_makes_the_manifest_stale(tmp_path: Path) -> None:
    listing = tmp_path / "tiles.csv"
    listing.write_text("path,label\n")
    path = tmp_path / "run" / "manifest.csv"
    write(path, rows(["A", "B"]), tmp_path, inputs=[listing])
    check_inputs_unchanged(path, read_record(path))
    listing.write_text("path,label\nmore.png,A\n")
    with pytest.raises(StaleInput, match=r"tiles\.csv"):
        check_inputs_unchanged(path, read_record(path))


def test_tile_ids_are_paths_without_suffix_where_that_is_unique() -> None:
    assert tile_ids(["A/a.png", "B/a.png", "A/b.tif_Row_1_Col_2.tif"]) == ["A/a", "B/a", "A/b.tif_Row_1_Col_2"]
    assert tile_ids(["A/a.jpg", "A/a.png", "A/b.png"]) == ["A/a.jpg", "A/a.png", "A/b"]
    assert tile_ids(["a.d/x", "a.d/.png", "."]) == ["a.d/x", "a.d/.png", "."]
    assert tile_ids([]) == []


@pytest.mark.fault("the same tile twice, or in two splits")
@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from(["a", "a.png", "a.jpg", "a.png.png", "a.png.jpg", "b.png", "a.jpg.tif"]), unique=True))
def test_tile_ids_are_always_unique(paths: list[str]) -> None:
    ids = tile_ids(paths)
    assert len(set(ids)) == len(paths) == len(ids)
