"""Whether rows fit into memory, and how memory is shared."""

from pathlib import Path

import pytest

from pipeline.errors import BadInput
from pipeline.heads import memory_budget
from pipeline.heads.config import FitConfig
from pipeline.heads.memory_budget import (
    LEAST_BLOCK,
    LEAST_SAMPLE,
    LEAST_SHARE,
    MOST_BLOCK,
    MOST_SAMPLE,
    SHARE,
    Memory,
    Room,
    check_memory,
    decide_memory,
    needed,
    room,
    share_out,
)

from ..builders import D, make_run  # noqa: TID252  (no package has the tests)

CONFIG = FitConfig(jobs=2)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """120 rows, 72 of them train and 24 val, of three classes."""
    return make_run(tmp_path / "run") / "embeddings.h5"


@pytest.mark.parametrize(("fit_on", "n_fit"), [("train", 72), ("heldout", 24)])
def test_rows_stay_in_their_file_from_one_byte_less_than_they_take(
    path: Path, monkeypatch: pytest.MonkeyPatch, fit_on: str, n_fit: int
) -> None:
    monkeypatch.setattr(memory_budget, "room", lambda memory, *rows, svm_rows: Room(memory, *rows[:1], svm_rows))
    enough = needed(120, 3, n_fit, D, svm_rows=20_000)
    config = FitConfig(fit_on, jobs=2)  # type: ignore[arg-type]
    assert decide_memory(enough, path, None, config, cluster=None).room is None
    assert decide_memory(enough - 1, path, None, config, cluster=None).room == Room(enough - 1, 120, 20_000)


def test_features_of_baselines_take_memory_too(fitted_run: Path) -> None:
    from pipeline import baselines

    assert baselines.main(["--run", str(fitted_run), "--baseline-px", "32", "--threads", "1", "--workers", "0"]) == 0
    widths: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            memory_budget, "needed", lambda n_rows, n_classes, n_fit, width, svm_rows: widths.append(width) or 0
        )
        for place in (None, fitted_run / "baselines.h5"):
            decide_memory(1, fitted_run / "embeddings.h5", place, CONFIG, cluster=None)
    assert widths[0] == 512
    assert widths[1] > widths[0] + 2048 + 512


def test_memory_that_is_not_stated_is_a_share_of_the_machine_busy_or_idle(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P6: which heads are fitted does not depend on what other programs take."""
    monkeypatch.setattr(memory_budget, "total_bytes", lambda: 10**10)
    assert decide_memory(None, path, None, CONFIG, cluster=None) == Memory(0, int(SHARE * 10**10))


def test_a_local_cluster_shares_the_memory_and_its_rows_must_fit_into_a_share(path: Path) -> None:
    enough = needed(120, 3, 72, D, svm_rows=20_000)
    assert enough < LEAST_SHARE
    assert decide_memory(3 * LEAST_SHARE, path, None, CONFIG, cluster="local") == Memory(2, LEAST_SHARE)
    with pytest.raises(BadInput, match="are too little for a block"):
        decide_memory(enough + 1, path, None, CONFIG, cluster="local")
    assert decide_memory(enough + 1, path, None, CONFIG, cluster="tcp://a:1").room is None


def test_memory_is_shared_out_among_the_processes_of_this_machine() -> None:
    assert share_out(4 * 10**9, 16, "local") == Memory(1, 2 * 10**9)
    assert share_out(20 * 10**9, 4, "local") == Memory(4, 4 * 10**9)
    assert share_out(10**9, 16, "local") == Memory(1, 5 * 10**8)
    assert share_out(4 * 10**9, 16, "tcp://a:1") == share_out(4 * 10**9, 16, None) == Memory(0, 4 * 10**9)


@pytest.mark.fault("rows that take more memory than was stated")
def test_a_budget_is_enough_for_all_for_blocks_or_for_nothing() -> None:
    million, width, exact = 10**6, 2048, {"svm_rows": 20_000}
    assert needed(10**4, 8, 6000, width, **exact) < 4e9 < needed(10**5, 8, 60_000, width, **exact)
    assert needed(15_000, 8, 15_000, width, **exact) > needed(15_000, 8, 15_000, width, svm_rows=10_000)
    assert room(64 * 10**9, million, 8, width, **exact) == Room(MOST_BLOCK, MOST_SAMPLE, 20_000)
    tight = room(4 * 10**9, million, 8, width, **exact)
    assert LEAST_SAMPLE < tight.sample_rows < MOST_SAMPLE
    assert 8 * tight.svm_rows**2 < 10**9
    with pytest.raises(BadInput, match=r"1100MB for a process are too little .* give (\d+)MB or more") as caught:
        room(1100 * 10**6, million, 8, width, **exact)
    least = int(str(caught.value).rsplit("give ", 1)[1].split("MB")[0])
    found = room(least * 10**6, million, 8, width, **exact)
    assert found.block_rows >= LEAST_BLOCK
    assert found.sample_rows >= LEAST_SAMPLE
    with pytest.raises(BadInput, match="too little"):
        room((least - 1) * 10**6, million, 8, width, **exact)


def test_more_rows_than_half_of_the_memory_holds_are_refused_with_a_number_that_fits() -> None:
    check_memory(1000, total=2 * 8 * 1000**2)
    with pytest.raises(BadInput, match=r"SVM of 1001 rows .* give --svm-rows 1000 or less") as caught:
        check_memory(1001, total=2 * 8 * 1000**2)
    assert "\n" not in str(caught.value)
    with pytest.raises(BadInput, match="--svm-rows"):
        check_memory(10**9)
