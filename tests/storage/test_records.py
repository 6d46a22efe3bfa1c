"""Records: any change is found, and stale inputs through every link of the chain."""

import random
import shutil
from pathlib import Path

import pytest

from pipeline.errors import BadArtifact, StaleInput
from pipeline.storage.freshness import check_inputs_unchanged, current_record
from pipeline.storage.records import Artifact, check_artifact, read_record, read_record_alone, record_path

from .making import OPTIONS, make


@pytest.fixture
def chain(tmp_path: Path) -> list[Path]:
    """Tiles -> model -> rows -> figures, each made from the one before."""
    first = make(tmp_path / "manifest.csv")
    second = make(tmp_path / "model.bin", stage="train", inputs=(first,))
    third = make(tmp_path / "rows.h5", stage="extract", inputs=(second,))
    return [first, second, third, make(tmp_path / "out.csv", stage="report", inputs=(third,))]


def test_record_round_trip(tmp_path: Path) -> None:
    given = make(tmp_path / "tiles.csv")
    (tmp_path / "figures").mkdir()
    figure = tmp_path / "figures" / "a.png"
    figure.write_bytes(b"png")
    path = make(tmp_path / "a.csv", inputs=(given,), outputs=[figure], details={10: "x", 9: "y"}, device="cpu")
    record = check_artifact(path, schema="thing/1.0")
    assert record["options"] == {"epochs": 3, "rate": 0.1, "name": "Zöllner", "sizes": [1, 2]}
    assert record["details"] == {"10": "x", "9": "y"}
    assert set(record["inputs"]) == {"tiles.csv"}
    assert set(record["outputs"]) == {"figures/a.png"}
    assert (record["seed"], record["device"], record["stage"], record["bytes"]) == (5, "cpu", "prepare", 8)
    assert {"torch", "numpy", "python", "histoheads"} <= set(record["versions"])
    assert record == read_record(path) == read_record_alone(path)
    path.unlink()
    assert read_record_alone(path) == record  # left behind in a clone
    with pytest.raises(BadArtifact, match="not there"):
        read_record(path)


@pytest.mark.parametrize("which", ["artefact", "record"])
def test_p8_any_changed_byte_is_found(tmp_path: Path, which: str) -> None:
    path = make(tmp_path / "a.csv", "".join(f"{i},tile {i}\n" for i in range(100)), details={"classes": ["A", "B"]})
    target = path if which == "artefact" else record_path(path)
    whole = target.read_bytes()
    rng = random.Random(3)
    for position in [0, len(whole) - 1, *(rng.randrange(len(whole)) for _ in range(50))]:
        changed = bytearray(whole)
        changed[position] ^= 1 << rng.randrange(8)
        target.write_bytes(changed)
        with pytest.raises(BadArtifact, match=r"a\.csv") as caught:
            check_artifact(path, schema="thing/1.2")
        assert "\n" not in str(caught.value)
    for damaged in (whole[:-1], whole + b"\n", b"", b"[]", b"3", b"null", b"[" * 100_000):
        target.write_bytes(damaged)
        with pytest.raises(BadArtifact, match=r"a\.csv"):
            check_artifact(path, schema="thing/1.2")
    target.write_bytes(whole)
    check_artifact(path, schema="thing/1.2")


def test_a_missing_record_is_named(tmp_path: Path) -> None:
    path = make(tmp_path / "a.csv")
    record_path(path).unlink()
    with pytest.raises(BadArtifact, match=r"a\.csv\.json: the record of a\.csv is missing"):
        check_artifact(path, schema="thing/1.2")


@pytest.mark.parametrize(("schema", "fits"), [("thing/1.0", True), ("thing/1.9", True), ("thing/2.0", False)])
def test_another_minor_version_fits_a_major_one_does_not(tmp_path: Path, schema: str, fits: bool) -> None:
    path = make(tmp_path / "a.csv")
    if fits:
        check_artifact(path, schema=schema)
    else:
        with pytest.raises(BadArtifact, match=r"thing/1\.2, but thing/2\.0 is needed"):
            check_artifact(path, schema=schema)
    with pytest.raises(BadArtifact, match=r"schema thing/1\.2"):
        check_artifact(path, schema="other/1.2")


def test_p8_a_fresh_chain_passes(chain: list[Path]) -> None:
    for path in chain:
        check_inputs_unchanged(path, read_record(path))


@pytest.mark.fault("an input that changed since")
@pytest.mark.parametrize("changed", [0, 1, 2])
def test_p8_a_stale_input_is_found_through_every_link(chain: list[Path], changed: int) -> None:
    """The first, second or third file is made anew; the last one knows, though its own input may be as it was."""
    inputs = tuple(chain[changed - 1 : changed] if changed else ())
    make(chain[changed], "made anew\n", inputs=inputs)
    with pytest.raises(StaleInput) as caught:
        check_inputs_unchanged(chain[3], read_record(chain[3]))
    made, cause = chain[changed + 1].name, chain[changed].name
    assert f"{made} was made from {cause}" in str(caught.value)
    stage = ("train", "extract", "report")[changed]
    assert f"python -m pipeline.{stage}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_p8_a_stale_input_is_found_past_a_file_that_was_left_behind(chain: list[Path]) -> None:
    """In a clone the heavy files are missing, their records are not."""
    chain[1].unlink()
    chain[2].unlink()
    check_inputs_unchanged(chain[3], read_record(chain[3]))
    make(chain[0], "made anew\n")
    with pytest.raises(StaleInput, match=r"manifest\.csv"):
        check_inputs_unchanged(chain[3], read_record(chain[3]))


def test_an_input_without_a_trace_cannot_be_compared(chain: list[Path]) -> None:
    chain[0].unlink()
    record_path(chain[0]).unlink()
    check_inputs_unchanged(chain[3], read_record(chain[3]))


def test_a_run_moved_as_a_whole_stays_fresh(chain: list[Path], tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "deep" / "er"
    shutil.copytree(chain[0].parent, elsewhere)
    check_inputs_unchanged(elsewhere / "out.csv", read_record(elsewhere / "out.csv"))


def test_inputs_of_a_linked_run_folder_are_found_again(tmp_path: Path) -> None:
    """Reports on a big disk behind a link: `..` leads elsewhere there."""
    (tmp_path / "disk" / "far" / "run").mkdir(parents=True)
    (tmp_path / "run").symlink_to(tmp_path / "disk" / "far" / "run")
    given = make(tmp_path / "given.csv")
    path = make(tmp_path / "run" / "a.csv", inputs=(given,))
    assert current_record(Artifact(path, "thing/1.2", "prepare", OPTIONS, [given], 5)) is not None
    make(given, "changed\n")
    with pytest.raises(StaleInput, match=r"given\.csv"):
        check_inputs_unchanged(path, read_record(path))
