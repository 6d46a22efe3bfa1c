"""A map against a truth, by hand; what a truth file must be."""

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import BadInput, PipelineError
from pipeline.evaluation.map_agreement import jaccard_index, share_agreed
from pipeline.maps.cells import class_map, grid_of
from pipeline.maps.ground_truth import GLASS, GroundTruth, read_ground_truth, score_map
from pipeline.storage.embeddings.slide_info import SlideInfo

SLIDE = SlideInfo("s.tif", "a" * 64, 400, 300, 0.5, 100, 0.5, 100, 100)
CLASSES = ["ADI", "LYM", "TUM"]


def found_map(codes):
    """Return a map of cells of 100 px from a table of codes, -1 for no tile."""
    codes = np.array(codes)
    rows, columns = np.nonzero(codes >= 0)
    coords = np.column_stack([columns, rows]) * 100
    return class_map(
        grid_of(coords, SLIDE, 3), coords, np.eye(3)[codes[rows, columns]], np.ones(len(rows), bool), patch=100
    )


def test_by_hand():
    found = found_map([[0, 0, 1, -1], [0, 2, 1, 1]])
    truth = GroundTruth(np.array([[0, 0, 1, 1], [2, 2, GLASS, 1], [0, 0, 0, 0]], np.int16), 100)
    score = score_map(found, truth)
    assert score.matrix.tolist() == [[2, 0, 0], [0, 2, 0], [1, 0, 1]]
    assert (score.n_unmapped, score.n_on_glass, score.side) == (5, 1, 100)
    np.testing.assert_allclose(jaccard_index(score.matrix), [2 / 3, 1, 1 / 2])
    assert share_agreed(score.matrix) == pytest.approx(5 / 6)


def test_a_finer_truth_is_not_smoothed_and_a_coarser_one_does_not_smooth_the_map():
    found = found_map([[0, 1]])
    fine = np.zeros((2, 4), np.int16)
    fine[:, 3] = 1
    score = score_map(found, GroundTruth(fine, 50))
    assert score.side == 50
    assert score.matrix.tolist() == [[4, 2, 0], [0, 2, 0], [0, 0, 0]]
    score = score_map(found, GroundTruth(np.ones((1, 1), np.int16), 200))
    assert score.side == 100
    assert score.matrix.tolist() == [[0, 0, 0], [1, 1, 0], [0, 0, 0]]
    assert score.n_unmapped == 2


@pytest.fixture
def truth_file(tmp_path):
    """`truth_file(codes, **facts)`: a truth's PNG with its description."""

    def make(codes, **facts):
        path = tmp_path / "s-truth.png"
        Image.fromarray(np.array(codes, np.uint8)).save(path)
        path.with_suffix(".json").write_text(json.dumps({"classes": CLASSES, "cell_level0": 50} | facts))
        return path

    return make


def test_codes_are_put_into_the_models_order(truth_file):
    path = truth_file([[0, 1], [2, 255]], classes=["TUM", "ADI", "LYM"])
    truth = read_ground_truth(path, CLASSES, SLIDE)
    assert truth.code.tolist() == [[2, 0], [1, GLASS]]
    assert truth.side == 50


def test_a_class_that_does_not_occur_need_not_be_known(truth_file):
    assert read_ground_truth(truth_file([[0]], classes=["TUM", "NEW"]), CLASSES, SLIDE).code.tolist() == [[2]]


@pytest.mark.parametrize(
    ("codes", "facts", "message"),
    [
        ([[1]], {"classes": ["TUM", "NEW"]}, "class 'NEW' is unknown to the model"),
        ([[7]], {}, "holds the code 7, but s-truth.json names only 3 classes"),
        ([[0]], {"classes": [1]}, "no list 'classes'"),
        ([[0]], {"cell_level0": 0}, "no 'cell_level0'"),
        ([[0]], {"cell_level0": True}, "no 'cell_level0'"),
        ([[[0, 1, 2]]], {}, "not 8-bit grey"),
        ([[0]], {"slide_width": 401, "slide_height": 300}, "for a slide of 401 x 300 px, but s.tif has 400 x 300"),
    ],
)
def test_what_is_no_truth_is_refused(truth_file, codes, facts, message):
    with pytest.raises(BadInput, match=message):
        read_ground_truth(truth_file(codes, **facts), CLASSES, SLIDE)


def test_a_truth_without_description_or_that_is_no_picture(truth_file):
    path = truth_file([[0]])
    path.write_bytes(b"no picture")
    with pytest.raises(BadInput, match=r"--truth: .*not a readable PNG"):
        read_ground_truth(path, CLASSES, SLIDE)
    path.with_suffix(".json").write_text("[1")
    with pytest.raises(PipelineError, match="not a readable JSON"):
        read_ground_truth(path, CLASSES, SLIDE)
    path.with_suffix(".json").unlink()
    with pytest.raises(BadInput, match=r"s-truth\.json next to it"):
        read_ground_truth(path, CLASSES, SLIDE)


def test_a_map_that_is_the_truth_scores_one():
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 3, (3, 4))
    score = score_map(found_map(codes), GroundTruth(codes.astype(np.int16), 100))
    assert share_agreed(score.matrix) == 1
    assert (jaccard_index(score.matrix) == 1).all()
    assert score.n_unmapped == score.n_on_glass == 0
    assert dataclasses.asdict(score)["side"] == 100
