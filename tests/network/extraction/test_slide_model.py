"""Which network looks at a slide, and whether it saw the slide's source."""

import shutil
from pathlib import Path

import pytest

from pipeline import prepare
from pipeline.errors import BadArtifact
from pipeline.network.extraction.slide_model import UNKNOWN, slide_model, source_of
from pipeline.slides.find import SlideEntry
from pipeline.storage.protocol import read_protocol
from pipeline.tiles.manifest import read_manifest


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two prepared runs on the same tiles of six sources S0..S5: `single`, one split, and `plan`, three folds."""
    import numpy as np
    from PIL import Image

    base = tmp_path_factory.mktemp("sources")
    rng = np.random.default_rng(0)
    for label in ("A", "B"):
        (base / "tiles" / label).mkdir(parents=True)
        for i in range(24):
            noise = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(noise).save(base / "tiles" / label / f"S{i % 6}_{i:02d}.png")
    words = ["--data", str(base / "tiles"), "--group-regex", r"(S\d)_", "--workers", "1"]
    assert prepare.main(["--run", str(base / "single"), *words]) == 0
    assert (
        prepare.main(["--run", str(base / "plan"), *words, "--protocol", "logo", "--folds", "3", "--seeds", "2"]) == 0
    )
    return base


def entry(name: str, group: str | None = None) -> SlideEntry:
    """Return a slide that nobody opens."""
    return SlideEntry(Path(f"{name}.svs"), name, group=group)


@pytest.mark.parametrize(
    ("name", "group", "source"),
    [
        ("S3_whole", None, "S3"),
        ("a S3_whole", None, "S3"),
        ("S9_whole", None, None),  # the rule finds a name that no tile has: it may be anything
        ("S9_whole", "S9", "S9"),
        ("else", None, None),
        ("S3_whole", "S1", "S1"),
        ("else", " s3", "S3"),  # another spelling is no other patient
    ],
)
def test_the_rule_of_the_tiles_tells_the_source(runs: Path, name: str, group: str | None, source: str | None) -> None:
    assert source_of(entry(name, group), read_manifest(runs / "single" / "manifest.csv")) == source


def test_a_network_saw_the_sources_that_taught_or_chose_it(runs: Path) -> None:
    table = read_manifest(runs / "single" / "manifest.csv").table
    by_split = {split: sorted(set(table.loc[table["split"] == split, "group"])) for split in ("train", "val", "test")}
    for split, saw in (("train", True), ("val", True), ("test", False)):
        for group in by_split[split]:
            assert slide_model(runs / "single", entry(f"{group}_x"), model=None).saw_source is saw
    assert slide_model(runs / "single", entry("x", "S77"), model=None).saw_source is False
    assert slide_model(runs / "single", entry("x"), model=None).saw_source == UNKNOWN


def test_of_a_plan_the_part_is_taken_that_held_the_source_out(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """P7."""
    protocol = read_protocol(runs / "plan")
    assert protocol is not None
    for group in (f"S{i}" for i in range(6)):
        found = slide_model(runs / "plan", entry(f"{group}_x"), model=None)
        part = next(part for part in protocol.parts if group in part.test_groups)
        assert found.path == protocol.folder(part) / "model.safetensors"
        assert found.saw_source is False
        assert f"part {part.name}, source {group} held out" in capsys.readouterr().err
    unknown = slide_model(runs / "plan", entry("x"), model=None)
    assert unknown.path.parent.name == protocol.parts[0].name
    assert unknown.saw_source == UNKNOWN
    assert "no part is known to have held its source out" in capsys.readouterr().err


def test_a_model_by_its_path_counts_with_its_own_manifest_alone(trained_run: Path, runs: Path, tmp_path: Path) -> None:
    own = slide_model(runs / "single", entry("x", "S1"), model=trained_run / "model.safetensors")
    assert own.manifest is not None
    assert own.manifest.path == trained_run / "manifest.csv"
    shutil.copytree(trained_run, tmp_path / "moved")
    for name in ("manifest.csv", "manifest.csv.json"):
        shutil.copy(runs / "single" / name, tmp_path / "moved" / name)
    assert (
        slide_model(runs / "single", entry("x", "S1"), model=tmp_path / "moved" / "model.safetensors").manifest is None
    )


def test_a_run_without_tiles(tmp_path: Path) -> None:
    with pytest.raises(BadArtifact, match=r"manifest\.csv"):
        slide_model(tmp_path, entry("x"), model=None)
