"""Classes bound to groups: numbers worked by hand."""

import numpy as np
import pandas as pd
import pytest

from pipeline.tiles.audit.confounding import confounding, group_findings


def table(text: str) -> pd.DataFrame:
    """`"g1:AAAB g2:BB"`: group and the classes of its tiles."""
    rows = [(group, label) for part in text.split() for group, labels in [part.split(":")] for label in labels]
    return pd.DataFrame(rows, columns=["group", "label"])


def lines(text: str) -> list[str]:
    found = table(text)
    return [f"{f.severity}: {f.line}" for f in group_findings(found, sides=found["group"].to_numpy(dtype=object))]


def test_confounding_by_hand() -> None:
    found = table("g1:AAAB g2:BB")
    bias = confounding(found["label"], found["group"])
    # g1: each A sees AAB less itself: A; its B sees AAA: wrong. g2: each B sees a B.
    assert bias.guessed == pytest.approx(5 / 6)
    assert bias.majority == pytest.approx(3 / 6)
    assert bias.gain == pytest.approx(2 / 3)


def test_ties_and_lone_tiles_go_to_the_more_frequent_class() -> None:
    found = table("g1:A g2:A g3:B g4:AB")
    bias = confounding(found["label"], found["group"])
    # lone tiles are guessed A: two right, B wrong; in g4 each sees the other: both wrong
    assert bias.guessed == pytest.approx(2 / 5)
    assert bias.majority == pytest.approx(3 / 5)
    assert bias.gain < 0


def test_information_is_one_when_bound_and_nothing_by_chance() -> None:
    bound = table("a:AAAAA b:BBBBB c:CCCCC")
    assert confounding(bound["label"], bound["group"]).information == pytest.approx(1)
    rng = np.random.default_rng(0)
    free = pd.DataFrame({"label": rng.choice(list("AB"), 300), "group": rng.integers(0, 60, 300).astype(str)})
    assert abs(confounding(free["label"], free["group"]).information) < 0.05
    assert confounding(free["label"], free["group"]).gain < 0.1


def test_even_groups_are_no_finding() -> None:
    assert lines("a:AABB b:AABB c:AABB") == []
    warning, note = lines("a:AAA b:AAA c:AAA")
    assert warning == "warning: 3 of 3 groups have one class only (A 3)"
    assert note.startswith("note: in 3 of 3 groups at least 90 % of the tiles are of one class")
    assert lines("a:AAAAAAAAAB b:AAAAAAAAAB c:AABBBBBBBB")[-1].startswith("note: in 2 of 3 groups"), "nine of ten"


def test_holes_are_counted() -> None:
    found = lines("a:AABBC b:AABBC c:AABBC d:AABB e:AABB f:AABB g:AABB")
    assert found[0] == "warning: classes are missing in groups, of 7: 'C' in 4"
    assert lines("a:AABBC b:AABBC c:AABBC d:AABB") == ["note: classes are missing in groups, of 4: 'C' in 1"]


def test_a_class_of_one_group_and_groups_of_one_class() -> None:
    found = lines("a:AABB b:AABB c:AABB d:EEEEEE e:A")
    assert found[0] == "warning: 1 class(es) are in one or two groups only, bound to their stain: 'E' (d)"
    assert "note: classes are missing in groups, of 5: 'B' in 2, 'A' in 1" in found
    assert "warning: 1 of 5 groups have one class only (E 1)" in found  # a group of one tile cannot hold two


def test_a_group_that_tells_the_class_is_warned_of_with_plain_numbers() -> None:
    # information: ln 2 - 0.325 = 0.368 nats, by chance 0.0375 (3 / 80), at most (ln 2 + ln 4) / 2 = 1.040
    found = lines("a:AAAAAAAAAB b:AAAAAAAAAB c:BBBBBBBBBA d:BBBBBBBBBA")
    text = (
        "warning: guessing a tile's class from the other tiles of its group is right for 90.0 % of the tiles, "
        "always guessing the most frequent class for 50.0 % (adjusted mutual information of class and group 0.33)"
    )
    assert found[0] == text
