"""prepare as a user meets it: one command, its exit code, one clear line, and files that are whole."""

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.cli.options import Common
from pipeline.errors import BadInput
from pipeline.prepare import PrepareOptions, main
from pipeline.storage.protocol import read_protocol
from pipeline.storage.records import check_artifact, read_record
from pipeline.tiles.manifest import SCHEMA, Manifest, read_manifest
from pipeline.tiles.splits.cross_validation import make_plan

KATHER = Path(__file__).parents[1] / "../shared/data/kather2016/tiles"


@pytest.fixture
def prepare(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """`prepare(data, *words)` -> exit code and what was said; the run folder is `<tmp_path>/run`."""

    def call(data: Path | str, *words: str) -> tuple[int, str]:
        capsys.readouterr()
        code = main(["--run", str(tmp_path / "run"), "--data", str(data), "--workers", "2", *words])
        said = capsys.readouterr()
        assert said.out == ""
        assert "Traceback" not in said.err
        errors = [line for line in said.err.splitlines() if line.startswith("error: ")]
        assert len(errors) == (code in (1, 2))
        return code, said.err

    return call


@pytest.fixture
def manifest(tmp_path: Path) -> Callable[[], Manifest]:
    return lambda: read_manifest(tmp_path / "run" / "manifest.csv")


GROUPED = ("--group-regex", r"/(s\d)_")


def test_a_folder_becomes_a_manifest_with_audit_and_figure(
    tile_folder: Callable[..., Path], prepare: Any, manifest: Any, tmp_path: Path
) -> None:
    code, said = prepare(tile_folder(n=24, groups=6), *GROUPED)
    assert code == 0
    assert "prepare: 48 tiles (" in said
    assert said.rstrip().endswith("of 2 classes in " + str(tmp_path / "run" / "manifest.csv") + ": A, B")
    found = manifest()
    table = found.table
    assert len(table) == 48
    assert found.classes == ["A", "B"]
    assert table.groupby("group")["split"].nunique().eq(1).all()
    assert set(table.loc[table["split"] == "train", "label"]) == {"A", "B"}
    assert table["sha256"].str.fullmatch("[0-9a-f]{64}").all()
    assert set(table["width"]) == set(table["height"]) == {16}
    assert (found.root / table["path"].iloc[0]).is_file()
    record = check_artifact(tmp_path / "run" / "manifest.csv", schema=SCHEMA)
    assert set(record["outputs"]) == {"audit.json", "audit.md", "figures/classes.png"}
    assert record["details"]["protocol"] == "grouped"
    assert record["options"]["group_regex"] == GROUPED[1]
    audit = json.loads((tmp_path / "run" / "audit.json").read_text())
    assert (audit["n_tiles"], audit["n_unreadable"]) == (48, 0)
    assert "Split: grouped." in (tmp_path / "run" / "audit.md").read_text()
    with Image.open(tmp_path / "run" / "figures" / "classes.png") as figure:
        figure.load()


def test_p5_nothing_is_written_outside_the_run_folder(
    tile_folder: Callable[..., Path], prepare: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tile_folder(n=6)
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert prepare(folder, *GROUPED)[0] == 0
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cwd", "run", "tiles"]
    assert list((tmp_path / "cwd").iterdir()) == []


@pytest.mark.fault("the same seed twice")
def test_p6_the_same_command_gives_the_same_bytes(
    tile_folder: Callable[..., Path], prepare: Any, tmp_path: Path
) -> None:
    folder = tile_folder(n=12, groups=6)
    seen = []
    for _ in range(2):
        assert prepare(folder, *GROUPED, "--restart")[0] == 0
        names = ("manifest.csv", "audit.json", "audit.md", "figures/classes.png")
        seen.append([(tmp_path / "run" / name).read_bytes() for name in names])
    assert seen[0] == seen[1]


def test_a_second_run_is_current_and_does_nothing(
    tile_folder: Callable[..., Path], prepare: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tile_folder()
    assert prepare(folder, *GROUPED)[0] == 0
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").glob("*.*") if path.name != ".lock"}
    for data in (folder, f"{folder}/", f"{folder}/../{folder.name}"):  # the same folder in other words
        code, said = prepare(data, *GROUPED)
        assert code == 0
        assert "prepare: current" in said
    assert {path: path.stat().st_mtime_ns for path in before} == before
    shutil.rmtree(tmp_path / "run" / "figures")  # what is damaged is made again
    code, said = prepare(folder, *GROUPED)
    assert code == 0
    assert "prepare: current" not in said
    assert (tmp_path / "run" / "figures" / "classes.png").is_file()


def test_other_options_are_refused_without_restart(
    tile_folder: Callable[..., Path], prepare: Any, manifest: Any, tmp_path: Path
) -> None:
    folder = tile_folder(n=12)
    assert prepare(folder, "--protocol", "random")[0] == 0
    whole = (tmp_path / "run" / "manifest.csv").read_bytes()
    code, said = prepare(folder, "--protocol", "random", "--seed", "1")
    assert code == 1
    assert "seed=0, now 1" in said
    assert "--restart" in said
    assert prepare(tile_folder("others"), "--protocol", "random")[0] == 1
    assert (tmp_path / "run" / "manifest.csv").read_bytes() == whole
    assert prepare(folder, "--protocol", "random", "--seed", "1", "--restart")[0] == 0
    assert (tmp_path / "run" / "manifest.csv").read_bytes() != whole
    (tmp_path / "run" / "manifest.csv.json").write_text("{}")
    code, said = prepare(folder, "--protocol", "random", "--seed", "1")
    assert code == 1
    assert "--restart" in said
    assert prepare(folder, "--protocol", "random", "--seed", "1", "--restart")[0] == 0


def test_an_interrupted_prepare_is_made_anew(
    tile_folder: Callable[..., Path], prepare: Any, manifest: Any, tmp_path: Path
) -> None:
    """P2: killed before its record was written, the table does not count."""
    folder = tile_folder()
    assert prepare(folder, *GROUPED)[0] == 0
    whole = (tmp_path / "run" / "manifest.csv").read_bytes()
    (tmp_path / "run" / "manifest.csv.json").unlink()
    (tmp_path / "run" / "audit.md").unlink()
    (tmp_path / "run" / "manifest.csv").write_text("half")
    assert prepare(folder, *GROUPED)[0] == 0
    assert (tmp_path / "run" / "manifest.csv").read_bytes() == whole
    manifest()


# -- bad input -------------------------------------------------------------------------------------------------


def test_data_that_cannot_be_used(tile_folder: Callable[..., Path], prepare: Any, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for data, expected in (
        (tmp_path / "empty", "no tiles found: one folder per class is expected"),
        (tmp_path / "none", "no such folder or CSV file; known names: demo, kather2016"),
        (tile_folder("one", classes=("A",)), "holds one folder of tiles, 'A'"),
    ):
        code, said = prepare(data, *GROUPED)
        assert (code, expected in said) == (1, True), said
        assert not (tmp_path / "run" / "manifest.csv").exists()


@pytest.mark.parametrize(
    "words",
    [
        ("--group-regex", "("),
        ("--group-regex", "s\\d"),
        ("--fractions", "70", "15", "15"),
        ("--fractions", "1", "0", "0"),
        ("--data", ""),
        ("--source", "x.zip"),
        ("--url", "http://127.0.0.1/x.zip"),
        ("--demo-px", "3"),
        ("--demo-tiles", "3"),
    ],
)
def test_usage_errors_write_nothing(tile_folder: Callable[..., Path], prepare: Any, tmp_path: Path, words: Any) -> None:
    assert prepare(tile_folder(), *words)[0] == 2
    assert not (tmp_path / "run").exists()


@pytest.mark.fault("odd sizes and numbers of tiles")
def test_one_tile_in_a_class(tile_folder: Callable[..., Path], prepare: Any) -> None:
    folder = tile_folder()
    tile_folder("rare", classes=("R",), n=1)
    shutil.move(folder.parent / "rare" / "R", folder)
    code, said = prepare(folder, *GROUPED)
    assert code == 1
    assert "class 'R' has 1 readable tile(s)" in said


def test_two_tiles_in_a_class_are_too_few_for_a_random_split(tile_folder: Callable[..., Path], prepare: Any) -> None:
    folder = tile_folder(n=8)
    for path in sorted((folder / "B").iterdir())[2:]:
        path.unlink()
    code, said = prepare(folder, "--protocol", "random")
    assert code == 1
    assert "class 'B' has 2 tile(s); a random split needs at least 3" in said


def test_p4_an_unreadable_tile_is_listed_and_the_exit_code_is_3(
    tile_folder: Callable[..., Path], prepare: Any, manifest: Any, tmp_path: Path
) -> None:
    folder = tile_folder(n=12)
    (folder / "A" / "s0_000.png").write_text("no image")
    code, said = prepare(folder, *GROUPED)
    assert code == 1
    assert "1 of 24 tiles cannot be read, more than --max-bad 0.01: A/s0_000.png" in said
    assert not (tmp_path / "run" / "manifest.csv").exists()
    words = (*GROUPED, "--max-bad", "0.05")
    for again in (False, True):
        code, said = prepare(folder, *words)
        assert code == 3
        assert ("current" in said) == again
    row = manifest().table.set_index("tile_id").loc["A/s0_000"]
    assert (row["split"], row["sha256"], row["label"], row["width"]) == ("", "", "A", 0)
    assert row["problem"].startswith("not a readable PNG, JPEG")
    assert len(manifest().readable) == 23
    page = (tmp_path / "run" / "audit.md").read_text()
    assert "A/s0\\_000" in page
    assert "24 tiles, 1 unreadable" in page


def test_p4_a_class_that_lost_all_its_tiles_is_an_error(tile_folder: Callable[..., Path], prepare: Any) -> None:
    folder = tile_folder(n=60)
    (folder / "C").mkdir()
    (folder / "C" / "s0_x.png").write_text("no image")
    code, said = prepare(folder, *GROUPED)
    assert code == 1
    assert "class 'C' has 0 readable tile(s)" in said


def test_p4_no_readable_tile_at_all(tile_folder: Callable[..., Path], prepare: Any) -> None:
    folder = tile_folder(n=2)
    for path in folder.glob("*/*.png"):
        path.write_bytes(b"")
    assert prepare(folder, *GROUPED, "--max-bad", "1")[0] == 1


@pytest.mark.fault("truncated, empty or garbage tile")
def test_every_kind_of_bad_file_at_once(tile_folder: Callable[..., Path], prepare: Any, manifest: Any) -> None:
    folder = tile_folder(n=12)
    jpeg = tile_folder("jpeg", classes=("A",), n=1, px=64, suffix=".jpg") / "A" / "s0_000.jpg"
    bad = folder / "A"
    (bad / "s0_half.jpg").write_bytes(jpeg.read_bytes()[:-900])
    (bad / "s1_text.png").write_text("text")
    (bad / "s2_empty.tif").touch()
    (bad / "s0_gone.png").symlink_to("nowhere")
    Image.fromarray(np.full((4, 4), 999, np.uint16)).save(bad / "s1_deep.tif")
    code, said = prepare(folder, *GROUPED, "--max-bad", "0.5")
    assert code == 3
    found = manifest().table
    problems = dict(zip(found["path"], found["problem"], strict=True))
    assert {path for path, problem in problems.items() if problem} == {
        f"A/{n}" for n in ("s0_half.jpg", "s1_text.png", "s2_empty.tif", "s0_gone.png", "s1_deep.tif")
    }
    assert problems["A/s0_gone.png"] == "a broken link: nowhere is not there"
    assert "5 unreadable tile(s) left out, see audit.md" in said


@pytest.mark.fault("the same tile twice, or in two splits")
def test_p7_the_same_pixels_in_train_and_test_name_both(
    tile_folder: Callable[..., Path], prepare: Any, manifest: Any, tmp_path: Path
) -> None:
    """Even if one is stored as PNG and the other as TIFF."""
    folder = tile_folder(n=6)
    with Image.open(folder / "A" / "s0_000.png") as tile:
        for group in "12":
            tile.save(folder / "A" / f"s{group}_copy.tif")
    code, said = prepare(folder, *GROUPED)
    assert code == 1
    error = said.splitlines()[-1]
    assert error.startswith("error: leakage: the same pixels are in test, train, val")
    assert all(name in error for name in ("A/s0_000", "A/s1_copy", "A/s2_copy", "--allow-leakage"))
    assert not (tmp_path / "run" / "manifest.csv").exists()
    code, said = prepare(folder, *GROUPED, "--allow-leakage")
    assert code == 0
    assert len(manifest().table) == 14
    assert "leakage" in (tmp_path / "run" / "audit.md").read_text()


@pytest.mark.fault("odd sizes and numbers of tiles")
def test_mixed_sizes_and_modes_are_warned_of(tile_folder: Callable[..., Path], prepare: Any, manifest: Any) -> None:
    folder = tile_folder(n=6)
    Image.new("L", (20, 10), 9).save(folder / "A" / "s0_grey.png")
    Image.new("RGBA", (16, 16), (1, 2, 3, 4)).save(folder / "B" / "s1_alpha.png")
    Image.new("CMYK", (16, 16), (1, 2, 3, 4)).save(folder / "B" / "s1_print.tif")
    code, said = prepare(folder, *GROUPED)
    assert code == 0
    assert "warning: prepare: tiles have 2 sizes, all are resized to one: 16x16 (14), 20x10 (1)" in said
    assert "not square" in said
    assert len(manifest().readable) == 15


def test_p7_unknown_groups_need_a_word_from_the_user(
    tile_folder: Callable[..., Path], prepare: Any, manifest: Any
) -> None:
    folder = tile_folder(n=6)
    code, said = prepare(folder)
    assert code == 1
    assert "no groups (slides, patients) are known" in said
    assert "--group-regex" in said
    assert "--protocol random" in said
    code, said = prepare(folder, "--protocol", "random")
    assert code == 0
    assert "warning: prepare: no groups are known" in said
    assert manifest().details["protocol"] == "random"


def test_p7_the_random_protocol_says_so(
    tile_folder: Callable[..., Path], prepare: Any, manifest: Any, tmp_path: Path
) -> None:
    code, said = prepare(tile_folder(n=12), *GROUPED, "--protocol", "random")
    assert code == 0
    assert "are in several splits (random protocol)" in said
    assert manifest().details["protocol"] == "random"
    assert "Split: random." in (tmp_path / "run" / "audit.md").read_text()


@pytest.mark.fault("group in two splits, class missing in one, too few groups")
def test_too_few_groups(tile_folder: Callable[..., Path], prepare: Any) -> None:
    code, said = prepare(tile_folder(groups=2), *GROUPED)
    assert code == 1
    assert "2 group(s) (s0, s1) cannot be split" in said


def test_a_run_among_the_tiles_is_refused(
    tile_folder: Callable[..., Path], prepare: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its figures would be a class the next time."""
    folder = tile_folder()
    monkeypatch.chdir(folder)
    code, said = prepare(".", *GROUPED, "--run", "reports/x")
    assert code == 1
    assert "is among the tiles" in said


def test_hostile_class_names(tile_folder: Callable[..., Path], prepare: Any, manifest: Any) -> None:
    names = ("=1+1", "a, 'b' \"c\"", "<b>|x", "Zöllner")
    assert prepare(tile_folder(classes=names), *GROUPED)[0] == 0
    assert manifest().classes == sorted(names)


@pytest.mark.skipif(not KATHER.is_dir(), reason="../shared/data/kather2016/tiles is not there")
def test_real_tiles_with_lost_names_are_named(prepare: Any, manifest: Any) -> None:
    code, said = prepare(KATHER, "--group-regex", r"CRC-Prim-HE-(\d\d)")
    assert code == 1
    assert "7 of 31 tile names give no group by" in said
    assert said.count("crc5000_") == 7
    assert prepare(KATHER, "--protocol", "random")[0] == 0
    assert len(manifest().readable) == 31


# -- CSV files -------------------------------------------------------------------------------------------------


def listing(folder: Path, splits: str = "", group: str = "") -> Path:
    """Write `tiles.csv` beside the folder; a split per letter (t, v, e) in turn."""
    of = {"t": "train", "v": "val", "e": "test"}
    paths = sorted(path.relative_to(folder.parent).as_posix() for path in folder.glob("*/*.png"))
    table = pd.DataFrame({"path": paths, "label": [path.split("/")[1] for path in paths]})
    if splits:
        table["split"] = [of[splits[i % len(splits)]] for i in range(len(paths))]
    if group:
        table["group"] = [group[i % len(group)] for i in range(len(paths))]
    table.to_csv(folder.parent / "tiles.csv", index=False)
    return folder.parent / "tiles.csv"


def test_a_given_split_is_kept(tile_folder: Callable[..., Path], prepare: Any, manifest: Any) -> None:
    assert prepare(listing(tile_folder(), splits="tve", group="xyz"))[0] == 0
    assert manifest().details["protocol"] == "given"
    assert list(manifest().table["split"]) == ["train", "val", "test"] * 4


def test_p7_a_given_split_through_groups_needs_the_random_protocol(
    tile_folder: Callable[..., Path], prepare: Any, manifest: Any
) -> None:
    file = listing(tile_folder(), splits="tve", group="xy")
    code, said = prepare(file)
    assert code == 1
    assert "puts group 'x' into several splits" in said
    assert prepare(file, "--protocol", "random")[0] == 0
    assert manifest().details["protocol"] == "random"


@pytest.mark.parametrize(
    ("splits", "pattern"), [("tv", "has no 'test' rows"), ("tttttt" + "vvvvee", "has no train tile of 'B'")]
)
def test_given_splits_that_cannot_serve(
    tile_folder: Callable[..., Path], prepare: Any, splits: str, pattern: str
) -> None:
    code, said = prepare(listing(tile_folder(), splits=splits))
    assert code == 1
    assert pattern in said


def test_a_changed_csv_is_read_again(tile_folder: Callable[..., Path], prepare: Any, manifest: Any) -> None:
    file = listing(tile_folder(), group="xyz")
    assert prepare(file)[0] == 0
    assert "current" in prepare(file)[1]
    file.write_text("\n".join(file.read_text().splitlines()[:-1]) + "\n")
    code, said = prepare(file)
    assert code == 1
    assert "0 tile(s) came and 1 went" in said
    assert prepare(file, "--restart")[0] == 0
    assert len(manifest().table) == 11


def test_csv_errors_reach_the_user(tmp_path: Path, prepare: Any) -> None:
    (tmp_path / "tiles.csv").write_text("path,label\na.png,A\n,B\n")
    code, said = prepare(tmp_path / "tiles.csv")
    assert code == 1
    assert "tiles.csv, line 3: empty 'path'" in said


# -- P7 by property --------------------------------------------------------------------------------------------


@pytest.mark.fault("group in two splits, class missing in one, too few groups")
@settings(max_examples=80, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    st.lists(
        st.tuples(st.sampled_from("ABC"), st.integers(0, 9), st.sampled_from(["", "", "", "bad"])),
        min_size=6,
        max_size=60,
    ),
    st.sampled_from(["grouped", "random", None]),
    st.integers(0, 1000),
)
def test_p7_no_group_stands_in_two_splits_unless_random_was_chosen(
    rows: list[tuple[str, int, str]], protocol: Any, seed: int
) -> None:
    table = pd.DataFrame(
        {
            "path": [f"{i}" for i in range(len(rows))],
            "label": [label for label, _, _ in rows],
            "group": [f"g{group}" for _, group, _ in rows],
            "split": "",
            "problem": [problem for _, _, problem in rows],
        }
    )
    try:
        good = table[table["problem"] == ""]
        plan = make_plan(good, PrepareOptions(data="t", protocol=protocol).split_options(seed), where="t")
    except BadInput:
        return
    assert (plan.n_folds, len(plan.parts)) == (1, 1)
    good = good.assign(split=plan.parts[0].split)
    assert set(good["split"]) == {"train", "val", "test"}
    assert set(good.loc[good["split"] == "train", "label"]) == set(good["label"])
    if protocol == "random":
        assert plan.protocol == "random"
    else:
        assert plan.protocol == "grouped"
        assert good.groupby("group")["split"].nunique().max() == 1


def test_defaults_are_the_tutorials() -> None:
    assert PrepareOptions().fractions == (0.70, 0.15, 0.15)
    assert Common().max_bad == 0.01


def test_each_source_of_the_demo_is_held_out_by_one_of_two_folds(prepare: Any, manifest: Any, tmp_path: Path) -> None:
    words = ("--demo-tiles", "160", "--demo-px", "16", "--data-dir", str(tmp_path / "data"))
    code, said = prepare("demo", *words)
    assert code == 0, said
    table = manifest().table
    assert len(table) == 160
    assert Counter(table["label"]) == dict.fromkeys(manifest().classes, 20)
    protocol = read_protocol(tmp_path / "run")
    assert protocol is not None
    assert protocol.protocol == "grouped"
    assert sorted(group for part in protocol.parts for group in part.test_groups) == [f"{k:02d}" for k in range(1, 11)]
    for part in protocol.parts:
        own = read_manifest(protocol.folder(part) / "manifest.csv")
        assert own.table.groupby("group")["split"].nunique().eq(1).all()
        assert all(set(own.classes) == set(rows["label"]) for _, rows in own.table.groupby("split"))
        is_train = (own.table["split"] == "train").to_numpy()
        assert 0 < own.details["source_colours"] < 1
        assert is_train.sum() == part.n["train"]
    assert os.path.commonpath([manifest().root.resolve(), tmp_path / "data"]) == str(tmp_path / "data")


def test_tiles_that_came_or_went_are_noticed(tile_folder: Callable[..., Path], prepare: Any) -> None:
    folder = tile_folder(n=24, groups=6)
    assert prepare(folder, *GROUPED)[0] == 0
    first = sorted((folder / "A").iterdir())[0]
    shutil.copy(first, first.with_name("s1_new.png"))
    code, said = prepare(folder, *GROUPED)
    assert code == 1
    assert "1 tile(s) came and 0 went" in said
    assert "A/s1_new.png" in said
    (first.with_name("s1_new.png")).unlink()
    code, said = prepare(folder, *GROUPED)
    assert code == 0
    assert "current" in said


def test_a_manifest_edited_by_hand_is_not_overwritten(
    tile_folder: Callable[..., Path], prepare: Any, tmp_path: Path
) -> None:
    folder = tile_folder(n=24, groups=6)
    assert prepare(folder, *GROUPED)[0] == 0
    path = tmp_path / "run" / "manifest.csv"
    path.write_text(path.read_text().replace("train", "test", 1))
    edited = path.read_bytes()
    code, said = prepare(folder, *GROUPED)
    assert code == 1
    assert "--restart" in said
    assert path.read_bytes() == edited


def test_a_folder_called_demo_is_not_the_demo(
    tile_folder: Callable[..., Path], prepare: Any, manifest: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tile_folder(n=24, groups=6).rename(tmp_path / "demo")
    assert prepare("./demo", *GROUPED)[0] == 0
    assert manifest().details["origin"] == "files"
    assert read_record(tmp_path / "run" / "manifest.csv")["options"]["data"] == "./demo"


# -- the same data by another path -----------------------------------------------------------------------------


def test_the_same_folder_by_another_path_is_current(
    tile_folder: Callable[..., Path], prepare: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a batch job gives it: absolute, through a link, from another folder."""
    folder = tile_folder(n=12)
    monkeypatch.chdir(tmp_path)
    assert prepare("tiles", *GROUPED)[0] == 0
    before = (tmp_path / "run" / "manifest.csv.json").read_bytes()
    (tmp_path / "link").symlink_to(folder)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    for words in (folder, "../tiles", tmp_path / "link", f"{tmp_path}/elsewhere/../tiles/"):
        code, said = prepare(words, *GROUPED, "--data-dir", str(tmp_path / "other"))
        assert (code, "current" in said) == (0, True), said
    assert (tmp_path / "run" / "manifest.csv.json").read_bytes() == before


def test_tiles_that_moved_are_the_same_if_their_pixels_are(
    tile_folder: Callable[..., Path], prepare: Any, manifest: Any, tmp_path: Path
) -> None:
    folder = tile_folder(n=12)
    assert prepare(folder, *GROUPED)[0] == 0
    before = (tmp_path / "run" / "manifest.csv").read_bytes()
    folder.rename(tmp_path / "moved")
    code, said = prepare(tmp_path / "moved", *GROUPED)
    assert (code, "current" in said) == (0, False)
    assert (tmp_path / "run" / "manifest.csv").read_bytes() == before
    assert manifest().root.samefile(tmp_path / "moved")
    shutil.copytree(tmp_path / "moved", tmp_path / "other")
    Image.new("RGB", (16, 16), "red").save(tmp_path / "other" / "A" / "s0_000.png")
    code, said = prepare(tmp_path / "other", *GROUPED)
    assert code == 1
    assert "1 tile(s) are not those that" in said
    assert "A/s0_000.png" in said
    (tmp_path / "other" / "A" / "s0_000.png").unlink()
    code, said = prepare(tmp_path / "other", *GROUPED)
    assert code == 1
    assert "0 tile(s) came and 1 went" in said
    assert manifest().root.samefile(tmp_path / "moved")


def test_a_list_by_another_path_is_compared_by_its_bytes(
    tile_folder: Callable[..., Path], prepare: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tile_folder(n=12)
    rows = [f"{path},{path.parent.name},{path.name[:2]}" for path in sorted(folder.rglob("*.png"))]
    (tmp_path / "list.csv").write_text("\n".join(["path,label,group", *rows, ""]))
    monkeypatch.chdir(tmp_path)
    assert prepare("list.csv")[0] == 0
    code, said = prepare(tmp_path / "list.csv")
    assert (code, "current" in said) == (0, True)
    before = (tmp_path / "run" / "manifest.csv").read_bytes()
    shutil.copy(tmp_path / "list.csv", tmp_path / "copy.csv")
    assert prepare("copy.csv")[0] == 0
    assert (tmp_path / "run" / "manifest.csv").read_bytes() == before
    (tmp_path / "other.csv").write_text(
        "\n".join(["path,label,group", *(row.replace(",A,", ",C,") for row in rows), ""])
    )
    code, said = prepare("other.csv")
    assert code == 1
    assert "data='copy.csv', now 'other.csv'" in said
    code, said = prepare(folder, *GROUPED)
    assert code == 1
    assert "was made with data=" in said


# -- images of other formats -----------------------------------------------------------------------------------


def test_images_of_formats_that_are_not_read_count_as_skipped(
    tile_folder: Callable[..., Path], prepare: Any, manifest: Any
) -> None:
    folder = tile_folder(n=24, groups=6)
    (folder / "A" / "s0_photo.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    code, said = prepare(folder, *GROUPED)
    assert code == 1
    assert "1 of 49 tiles cannot be read, more than --max-bad 0.01: A/s0_photo.heic" in said
    code, said = prepare(folder, *GROUPED, "--max-bad", "0.1")
    assert code == 3
    assert len(manifest().readable) == 48
    for path in (folder / "A").glob("*.png"):
        path.rename(path.with_suffix(".heic"))
        path.with_suffix(".heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    code, said = prepare(folder, *GROUPED, "--max-bad", "0.9", "--restart")
    assert code == 1
    assert "class 'A' has 0 readable tile(s) (25 cannot be read: not a readable PNG" in said


def test_a_class_of_bitmaps_is_a_class(tile_folder: Callable[..., Path], prepare: Any, manifest: Any) -> None:
    folder = tile_folder(n=24, groups=6)
    for path in (folder / "A").glob("*.png"):
        Image.open(path).save(path.with_suffix(".bmp"))
        path.unlink()
    assert prepare(folder, *GROUPED)[0] == 0
    assert Counter(manifest().table["label"]) == {"A": 24, "B": 24}


# -- layouts ---------------------------------------------------------------------------------------------------


def test_patients_are_no_classes_and_a_level_names_the_classes(
    tile_folder: Callable[..., Path], prepare: Any, manifest: Any, tmp_path: Path
) -> None:
    for patient in range(6):
        shutil.copytree(tile_folder(f"t{patient}"), tmp_path / "idc" / f"p{patient}")
    code, said = prepare(tmp_path / "idc", "--group-regex", r"^(p\d)/")
    assert code == 1
    assert "--class-level 2" in said
    code, said = prepare(tmp_path / "idc", "--group-regex", r"^(p\d)/", "--class-level", "2")
    assert code == 0
    assert Counter(manifest().table["label"]) == {"A": 36, "B": 36}
    assert said.rstrip().endswith(": A, B")
