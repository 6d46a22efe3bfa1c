"""Results of a slide or folder are never replaced by those of another one of its name."""

from pathlib import Path

import pytest

from pipeline.errors import BadArtifact, StaleInput
from pipeline.slides.place import check_same_content, content_facts, results_folder
from pipeline.storage import records


def test_another_content_is_refused_and_both_are_named(tmp_path: Path) -> None:
    folder = tmp_path / "run" / "slides" / "HE"
    folder.mkdir(parents=True)
    table, first, second = folder / "grid.csv", tmp_path / "p1" / "HE.svs", tmp_path / "p2" / "HE.svs"
    check_same_content(table, first, sha256="a" * 64, restart=False)  # nothing there
    table.write_text("x\n")
    details = content_facts(first, "a" * 64, folder)
    records.write_record(records.Artifact(table, "grid/1.0", "tile"), details=details)
    check_same_content(table, first, sha256="a" * 64, restart=False)
    check_same_content(table, second, sha256="a" * 64, restart=False)  # moved, the same content
    check_same_content(table, second, sha256="b" * 64, restart=True)
    for other in (first, second):
        with pytest.raises(StaleInput) as caught:
            check_same_content(table, other, sha256="b" * 64, restart=False)
        assert str(first) in str(caught.value)
        assert str(other) in str(caught.value)
        assert "--restart" in str(caught.value)


def test_a_link_in_the_run_is_refused(tmp_path: Path) -> None:
    """P5."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "maps").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BadArtifact, match="a link"):
        results_folder(tmp_path, "maps", "s")
