"""P5: what libraries keep goes with the command."""

import os
import sys
import tempfile
from pathlib import Path

import pytest

from pipeline.runtime.caches import VARIABLES, temporary_caches


@pytest.fixture(autouse=True)
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home and a temporary folder of this test; no variable names a cache."""
    for name in (*VARIABLES, "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path


def test_caches_are_removed_at_the_end(empty: Path) -> None:
    with temporary_caches():
        places = [Path(os.environ[name]) for name in VARIABLES]
        for place in places:
            assert place.parent.parent == empty / "tmp"
            place.mkdir(exist_ok=True)
            (place / "kept").touch()
    assert not any((empty / "tmp").iterdir())
    assert not (empty / "home").exists()
    assert not set(VARIABLES) & set(os.environ)


def test_a_folder_that_the_user_named_stays(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.setenv(name, str(empty / name))
    with temporary_caches():
        assert [os.environ[name] for name in VARIABLES] == [str(empty / name) for name in VARIABLES]
    assert [os.environ[name] for name in VARIABLES] == [str(empty / name) for name in VARIABLES]


@pytest.mark.skipif(sys.platform == "darwin", reason="another folder there")
def test_the_users_list_of_fonts_is_used_but_not_changed(empty: Path) -> None:
    known = empty / "home" / ".cache" / "matplotlib" / "fontlist-v1.json"
    known.parent.mkdir(parents=True)
    known.write_text("{}")
    with temporary_caches():
        copy = Path(os.environ["MPLCONFIGDIR"]) / known.name
        assert copy.read_text() == "{}"
        copy.write_text("other")
    assert known.read_text() == "{}"
