"""Folders that are probably no classes are refused by name."""

import re
from pathlib import Path

import pytest

from pipeline.errors import BadInput
from pipeline.tiles.datasets.layout import check_layout, class_note, labels_at

HERE = Path("here")


def paths(*folders: str, n: int = 4) -> list[str]:
    return [f"{folder}/{i}.png" for folder in folders for i in range(n)]


def check(tiles: list[str], group_regex: str = "") -> None:
    groups = [match[1] if group_regex and (match := re.search(group_regex, tile)) else "" for tile in tiles]
    check_layout(tiles, groups, where=HERE)


def refused(tiles: list[str], group_regex: str = "") -> str:
    with pytest.raises(BadInput) as caught:
        check(tiles, group_regex)
    assert str(caught.value).startswith("here: ")
    return str(caught.value)


ACCEPTED = {
    "classes": paths("ADI", "LYM", "TUM"),
    "slides in classes": paths("A/s1", "A/s2", "B/s3", "B/s4"),
    "one folder in each class": paths("A/images", "B/images"),
    "a class with folders": paths("A", "B", n=20) + paths("B/extra1", n=1),
    "classes with a word of splits": paths("validated", "tested tissue", "trainable"),
    "one class called test": paths("test", "control"),
    "numbered classes": paths("01_TUMOR", "02_STROMA"),
    "grades": paths("0", "1", "2"),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_classes_are_accepted(name: str) -> None:
    check(ACCEPTED[name])


REFUSED = {
    "IDC: patients": (paths(*(f"{p}/{c}" for p in range(10253, 10259) for c in "01")), ["10253", "0, 1"]),
    "LC25000: organs": (
        paths("colon_image_sets/colon_aca", "colon_image_sets/colon_n", "lung_image_sets/lung_aca"),
        ["colon_image_sets", "colon_aca, colon_n, lung_aca"],
    ),
    "NCT: two data sets": (
        paths(*(f"{d}/{c}" for d in ("NCT-CRC-HE-100K", "CRC-VAL-HE-7K") for c in ("ADI", "BACK"))),
        ["NCT-CRC-HE-100K", "ADI, BACK"],
    ),
    "splits": (paths("train/A", "val/A", "test/B"), ["test, train, val are splits"]),
    "splits next to another folder": (paths("train/A", "Test/A", "figures"), ["Test, train are splits"]),
    "one split next to another folder": (paths("train/A", "train/B", "figures"), ["train are splits"]),
    "splits with more words": (paths("train_images/A", "01_test set/A"), ["train_images", "are splits"]),
    "folds": (paths("fold1/A", "fold1/B", "fold2/A", "Fold_3/A"), ["Fold_3, fold1, fold2 are splits"]),
    "splits in classes": (paths("A/train", "A/test", "B/train", "B/test"), ["the class folders hold splits"]),
    "magnifications": (paths("40X/benign", "40X/malignant", "100X/benign"), ["100X, 40X", "benign"]),
    "images and masks": (paths("A/images", "A/masks", "B/images", "B/masks"), ["images, masks"]),
    "a stray image among patients": (
        [*paths(*(f"{p}/{c}" for p in range(10253, 10259) for c in "01")), "10253/preview.png"],
        ["10253", "0, 1"],
    ),
    "one class": (paths("A"), ["'A'", "at least two classes"]),
    "the folder above": (paths("data/A", "data/B"), ["--data 'here/data'", "A, B"]),
    "two folders above": (paths("data/tiles/A", "data/tiles/B"), ["--data 'here/data/tiles'"]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_other_layouts_are_refused_by_name(name: str) -> None:
    tiles, parts = REFUSED[name]
    message = refused(tiles)
    assert all(part in message for part in parts), message


def test_folders_that_are_the_groups_are_no_classes() -> None:
    tiles = paths("A/s1", "A/s2", "B/s1", "B/s2")
    assert "--class-level 1" in refused(tiles)
    check(tiles, r"/(s\d)/")
    patients = REFUSED["IDC: patients"][0]
    refused(patients, r"^(\d+)/")
    refused(patients, r"/(\d)\.png")


def test_labels_at_a_level() -> None:
    tiles = paths("10253/0", "10254/1", n=1)
    assert labels_at(tiles, 1, where=HERE) == ["10253", "10254"]
    assert labels_at(tiles, 2, where=HERE) == ["0", "1"]
    with pytest.raises(BadInput, match=r"1 tile\(s\) are in fewer than 2 folders.*a/b\.png"):
        labels_at([*tiles, "a/b.png"], 2, where=HERE)


def test_many_small_classes_may_be_patients() -> None:
    labels = [f"P{i}" for i in range(51) for _ in range(6)]
    assert "51 classes" in class_note(labels)
    assert class_note(labels[6:]) == ""
    assert class_note([label for label in labels for _ in range(4)]) == ""
