"""From tiles to cells, by hand: overlaps are averaged by cover, fringes and unreadable tiles have no class."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import BadInput
from pipeline.maps.cells import MISSING, NONE, ClassMap, average_cells, class_areas, class_map, grid_of
from pipeline.storage.embeddings.slide_info import SlideInfo

SLIDE = SlideInfo("s.tif", "a" * 64, 1000, 800, 0.5, 100, 0.5, 100, 100)


def slide(patch, stride, **more):
    return dataclasses.replace(SLIDE, patch_size_level0=patch, stride_level0=stride, **more)


def one_hot(codes, n=3):
    return np.eye(n)[codes]


def test_without_overlap_a_cell_is_a_tile():
    coords = np.array([[200, 100], [300, 100], [200, 200]])
    grid = grid_of(coords, SLIDE, 3)
    assert (grid.left, grid.top, grid.shape) == (200, 100, (2, 2))
    p = np.array([[0.6, 0.3, 0.1], [0.1, 0.2, 0.7], [0.2, 0.5, 0.3]])
    found = class_map(grid, coords, p, np.ones(3, bool), patch=100)
    assert found.code.tolist() == [[0, 2], [1, NONE]]
    np.testing.assert_allclose(found.p[0, 1], p[1], rtol=1e-6)
    assert np.isnan(found.p[1, 1]).all()
    n_cells, mm2 = class_areas(found)
    assert n_cells.tolist() == [1, 1, 1]
    np.testing.assert_allclose(mm2, (100 * 0.5 / 1000) ** 2)


def test_a_cell_is_decided_with_the_correction_of_the_head():
    coords = np.array([[200, 100], [300, 100]])
    p = np.array([[0.6, 0.3, 0.1], [0.1, 0.2, 0.7]])
    offsets = np.log([0.8, 0.1, 0.1])
    found = class_map(grid_of(coords, SLIDE, 3), coords, p, np.ones(2, bool), patch=100, offsets=offsets)
    assert found.code.tolist() == [[1, 2]]


def test_overlapping_votes_are_averaged_by_cover_before_the_class_is_taken():
    """Tiles of 150 px every 100 px: the middle cell is covered whole by the second tile, by half of the first."""
    coords = np.array([[0, 0], [100, 0]])
    p = np.array([[0.9, 0.1], [0.2, 0.8]])
    grid = grid_of(coords, slide(150, 100), 3)
    assert grid.shape == (2, 3)
    mean, cover = average_cells(grid, coords, p, patch=150)
    np.testing.assert_allclose(cover, [[1, 1.5, 0.5], [0.5, 0.75, 0.25]])
    np.testing.assert_allclose(mean[0, 1], (0.5 * p[0] + 1.0 * p[1]) / 1.5, rtol=1e-6)
    np.testing.assert_allclose(mean[0, 0], p[0], rtol=1e-6)
    found = class_map(grid, coords, p, np.ones(2, bool), patch=150)
    assert found.code.tolist() == [[0, 1, 1], [0, 1, NONE]]  # the corner is covered by a quarter only


def test_four_tiles_vote_on_a_cell():
    coords = np.array([[0, 0], [50, 0], [0, 50], [50, 50]])
    p = one_hot([0, 1, 1, 2])
    grid = grid_of(coords, slide(100, 50), 3)
    mean, cover = average_cells(grid, coords, p, patch=100)
    assert cover.tolist() == [[1, 2, 1], [2, 4, 2], [1, 2, 1]]
    np.testing.assert_allclose(mean[1, 1], [0.25, 0.5, 0.25])
    np.testing.assert_allclose(mean[0, 1], [0.5, 0.5, 0])


def test_a_stride_larger_than_the_tile():
    coords = np.array([[0, 0], [250, 0]])
    grid = grid_of(coords, slide(100, 250), 3)
    found = class_map(grid, coords, one_hot([0, 2]), np.ones(2, bool), patch=100)
    assert found.code.tolist() == [[0, 2]]


def test_cells_end_at_the_slides_border():
    coords = np.array([[900, 700]])
    found = class_map(grid_of(coords, slide(100, 250), 3), coords, one_hot([1]), np.ones(1, bool), patch=100)
    np.testing.assert_allclose(class_areas(found)[1][1], (0.05) ** 2)


def test_unreadable_tiles_are_missing_unless_others_cover_the_cell():
    coords = np.array([[0, 0], [100, 0], [200, 0]])
    ok = np.array([True, False, True])
    found = class_map(grid_of(coords, SLIDE, 3), coords, one_hot([0, 1]), ok, patch=100)
    assert found.code.tolist() == [[0, MISSING, 1]]
    assert np.isnan(found.p[0, 1]).all()
    coords = np.array([[0, 0], [50, 0], [100, 0]])
    found = class_map(grid_of(coords, slide(100, 50), 3), coords, one_hot([0, 1]), ok, patch=100)
    assert found.code[0].tolist() == [0, 0, 1, 1]


def test_uncertainty_is_entropy_over_its_largest_value():
    p = np.array([[[1.0, 0, 0, 0], [0.25] * 4, [0.5, 0.5, 0, 0], [np.nan] * 4]], np.float32)
    found = ClassMap(grid_of(np.array([[0, 0]]), SLIDE, 3), p, np.array([[0, 0, 0, NONE]], np.int16))
    np.testing.assert_allclose(found.uncertainty[0], [0, 1, 0.5, np.nan], atol=1e-6)


def test_maps_that_no_machine_can_hold_are_refused():
    coords = np.array([[0, 0], [100_000, 100_000]])
    with pytest.raises(BadInput, match="more than can be drawn: tile the slide with a larger --stride"):
        grid_of(coords, slide(100, 10, slide_width=200_000, slide_height=200_000), 3)
    with pytest.raises(BadInput, match="more than can be drawn"):
        grid_of(np.array([[0, 0]]), slide(1000, 1), 3)


def test_a_stride_beyond_the_slide_is_one_cell():
    grid = grid_of(np.array([[100, 0]]), slide(100, 2**62), 3)
    found = class_map(grid, np.array([[100, 0]]), one_hot([1]), np.ones(1, bool), patch=100)
    assert class_areas(found)[1][1] == pytest.approx(900 * 800 * 0.0005**2)


@pytest.mark.parametrize("mpp", [1e-300, 1e300])
def test_a_scale_that_cannot_be_is_refused(mpp):
    with pytest.raises(BadInput, match="um per px is impossible"):
        grid_of(np.array([[0, 0]]), slide(100, 100, mpp=mpp), 3)


def test_two_tiles_at_the_ends_of_a_slide_do_not_cost_a_whole_slide():
    """With many classes even less: memory follows the bytes of the file."""
    wide = {"slide_width": 200_000, "slide_height": 200_000}
    coords = np.array([[0, 0], [150_000, 150_000]])
    assert grid_of(coords, slide(100, 100, **wide), 8).shape == (1501, 1501)
    for stride, n_classes in ((90, 8), (100, 9), (5000, 32_767)):
        with pytest.raises(BadInput, match="more than can be drawn"):
            grid_of(coords, slide(100, stride, **wide), n_classes)


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 40), st.integers(1, 40), st.lists(st.tuples(st.integers(0, 90), st.integers(0, 90)), min_size=1))
def test_as_counting_pixel_by_pixel(patch, stride, places):
    """Each cell's cover and mean are those of its pixels, for tiles anywhere."""
    coords = np.array(sorted(set(places)))
    p = np.random.default_rng(0).dirichlet([1, 1, 1], len(coords))
    grid = grid_of(coords, slide(patch, max(stride, -(-patch // 64))), 3)
    mean, cover = average_cells(grid, coords, p, patch=patch)
    votes = np.zeros((200 + patch, 200 + patch, 4))
    for (x, y), row in zip(coords, p, strict=True):
        votes[y : y + patch, x : x + patch] += [*row, 1]
    for row in range(grid.n_rows):
        for column in range(grid.n_columns):
            top, left = grid.top + row * grid.side, grid.left + column * grid.side
            total = votes[top : top + grid.side, left : left + grid.side].sum(axis=(0, 1))
            np.testing.assert_allclose(cover[row, column], total[3] / grid.side**2, atol=1e-9)
            if total[3]:
                np.testing.assert_allclose(mean[row, column], total[:3] / total[3], rtol=1e-4, atol=1e-6)
