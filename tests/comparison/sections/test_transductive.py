"""Notes on what depends on other tiles of a group: only where it does, with the sources that keep their colours."""

from pipeline.comparison.sections.transductive import LISTED_SOURCES, RELATIVE, transductive


def test_nothing_is_noted_of_plain_runs() -> None:
    assert transductive({"relative": "none"}) == []


def test_each_option_has_its_note() -> None:
    assert transductive({"relative": "group"}) == [RELATIVE]
    notes = transductive({"relative": "group", "normalised": {"unchanged": []}})
    assert notes[0] == RELATIVE
    assert "--normalise source" in notes[1]
    assert "Baselines see the tiles as they are" in notes[1]
    both = transductive({"normalised": {"unchanged": []}, "baselines_normalised": {"unchanged": []}})
    assert "--baseline-normalise source" in both[0]
    assert transductive({"baselines_normalised": {"unchanged": []}})[0] in both[0]


def test_sources_that_keep_their_colours_are_named_and_counted() -> None:
    names = [f"p{i:02d} (test)" for i in range(LISTED_SOURCES + 3)]
    [note] = transductive({"normalised": {"unchanged": names}})
    assert names[0] in note
    assert names[-1] not in note
    assert "and 3 more" in note
