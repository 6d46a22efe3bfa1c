"""Many slides: each is locked by itself, one bad slide stops nothing, slides.csv keeps a row for every slide."""

import threading
from pathlib import Path

import pandas as pd
import pytest

from pipeline.errors import EXIT_FAILED, EXIT_OK, EXIT_SKIPPED, BadSlide, Locked, UsageError
from pipeline.slides.batch import each_slide
from pipeline.slides.find import SlideEntry
from pipeline.slides.outcomes import Outcome, last_problem, record_outcome, write_table
from pipeline.storage.lock import locked


def entries(*names: str) -> list[SlideEntry]:
    return [SlideEntry(Path(f"{name}.svs"), name) for name in names]


def work(entry: SlideEntry) -> Outcome:
    if entry.name.startswith("bad"):
        raise BadSlide(f"{entry.path}: torn")
    return Outcome(entry.name, tiles=7, skipped=int(entry.name == "hole"))


def table(run: Path) -> dict[str, list]:
    read = pd.read_csv(run / "slides" / "slides.csv", keep_default_na=False)
    return {row.slide: [row.stage, row.tiles, row.skipped, row.problem] for row in read.itertuples()}


def test_codes_and_rows(tmp_path: Path) -> None:
    assert each_slide(tmp_path, entries("a", "b"), work, stage="tile") == EXIT_OK
    assert each_slide(tmp_path, entries("a", "bad"), work, stage="extract") == EXIT_SKIPPED
    assert each_slide(tmp_path, entries("hole"), work, stage="extract") == EXIT_SKIPPED
    assert each_slide(tmp_path, entries("bad", "bad2"), work, stage="extract") == EXIT_FAILED
    with pytest.raises(BadSlide, match=r"bad3\.svs: torn"):
        each_slide(tmp_path, entries("bad3"), work, stage="tile")
    assert table(tmp_path) == {
        "a": ["extract", 7, 0, ""],
        "b": ["tile", 7, 0, ""],
        "bad": ["extract", 0, 0, "bad.svs: torn"],
        "bad2": ["extract", 0, 0, "bad2.svs: torn"],
        "bad3": ["tile", 0, 0, "bad3.svs: torn"],
        "hole": ["extract", 7, 1, ""],
    }
    assert last_problem(tmp_path / "slides" / "bad3", "tile") == "bad3.svs: torn"
    folder = SlideEntry(Path("in"), "in", problem="in: no slides in this folder")
    assert each_slide(tmp_path, [*entries("a"), folder], work, stage="tile") == EXIT_SKIPPED
    assert "in" not in table(tmp_path)


def test_two_spellings_of_one_name_are_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert each_slide(tmp_path, entries("HE"), work, stage="tile") == EXIT_OK
    with pytest.raises(BadSlide, match=r"he\.svs: .*slides/HE holds results"):
        each_slide(tmp_path, entries("he"), work, stage="extract")
    caplog.clear()
    with caplog.at_level("WARNING", "pipeline"):
        assert each_slide(tmp_path, entries("HE", "he"), work, stage="extract") == EXIT_SKIPPED
    assert "skipped he" in caplog.text  # P4: also with --quiet
    assert list(table(tmp_path)) == ["HE"]


def test_what_is_no_slides_fault_stops_all(tmp_path: Path) -> None:
    def refuse(entry: SlideEntry) -> Outcome:
        raise UsageError("--stride 0")

    with pytest.raises(UsageError):
        each_slide(tmp_path, entries("a", "b"), refuse, stage="tile")
    assert not (tmp_path / "slides" / "slides.csv").exists()


def test_a_slide_in_use_is_named_and_the_others_go_on(tmp_path: Path) -> None:
    with locked(tmp_path / "slides" / "a"):
        assert each_slide(tmp_path, entries("a", "b"), work, stage="tile") == EXIT_SKIPPED
        with pytest.raises(Locked, match="slides/a is in use"):
            each_slide(tmp_path, entries("a"), work, stage="tile")
    assert list(table(tmp_path)) == ["b"]


def test_tables_of_commands_at_the_same_time_lose_no_row(tmp_path: Path) -> None:
    def one(i: int) -> None:
        record_outcome(tmp_path / "slides" / f"s{i}", "extract", Outcome(f"s{i}", tiles=i))
        write_table(tmp_path)

    for i in range(8):
        (tmp_path / "slides" / f"s{i}").mkdir(parents=True)
    threads = [threading.Thread(target=one, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(table(tmp_path)) == [f"s{i}" for i in range(8)]
