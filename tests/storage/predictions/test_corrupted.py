"""robustness.csv: written, read back, pooled; what does not hold together is refused with the rule."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.errors import BadArtifact
from pipeline.storage.predictions.corrupted import COLUMNS, blocks, pool, read_robustness, to_csv
from pipeline.storage.predictions.csv_table import HeadOutput

HEADS = ("softmax", "svm")
CLASSES = ["a", "b"]


def table(
    ids: tuple[str, ...] = ("t1", "t2"), corruptions: tuple[str, ...] = ("none", "blur"), *, last: float = 0.75
) -> str:
    """All tiles are of class a and named b, but for the last one, which is given a by the probability `last`."""
    tiles = pd.DataFrame({"tile_id": ids, "group": "NA", "label": "a", "path": "not written"})
    p = np.array([[0.25, 0.75]] * (len(ids) - 1) + [[last, 1 - last]])
    answers = {c: {head: HeadOutput(p.argmax(axis=1), p) for head in HEADS} for c in corruptions}
    return to_csv(tiles, answers, CLASSES)


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def make(text: str, name: str = "robustness.csv") -> Path:
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return make


def test_what_is_written_is_read_back(write: Callable[..., Path]) -> None:
    read = read_robustness(write(table()))
    assert tuple(read.columns) == (*COLUMNS, "p_a", "p_b", "seed", "fold")
    assert list(read["predicted"]) == ["b", "a"] * 4
    assert list(read["p_a"]) == [0.25, 0.75] * 4
    assert list(read["tile_id"]) == ["t1", "t2"] * 4
    assert list(read["group"].unique()) == ["NA"]  # a name, not a missing value
    assert (read[["seed", "fold"]] == 0).all(axis=None)
    assert [(corruption, head) for corruption, head, _ in blocks(read)] == [
        ("none", "softmax"),
        ("none", "svm"),
        ("blur", "softmax"),
        ("blur", "svm"),
    ]


def cut(text: str, *rows: int) -> str:
    return "".join(line for i, line in enumerate(text.splitlines(keepends=True)) if i not in rows)


@pytest.mark.parametrize(
    ("damage", "rule"),
    [
        (lambda text: text.replace("corruption", "damage"), "its first columns are not"),
        (lambda text: text.splitlines()[0], "no rows"),
        (lambda text: "", "not a readable CSV file"),
        (lambda text: text.replace("svm", "svn"), "head 'svn' is unknown"),
        (lambda text: text.replace("none", "nothing"), "not those without corruption"),
        (lambda text: cut(text, 6), "softmax under 'blur' has other tiles"),
        (lambda text: cut(text, 7, 8), "svm has no rows under 'blur'"),
        (lambda text: text.replace("t2,NA,a,svm,blur", "t2,NA,b,svm,blur"), "svm under 'blur' has other tiles"),
        (lambda text: text.replace("t2", "t1"), "a tile occurs twice"),
        (lambda text: text.replace("p_b", "q_b"), "its columns are not"),
        (lambda text: "\n".join(",".join(line.split(",")[:6]) for line in text.splitlines()), "its columns are not"),
        (lambda text: text.replace("0.25", "x", 1), "a probability is not a number"),
        (lambda text: text.replace("0.25", "", 1), "a probability is not a number"),
    ],
)
def test_a_table_that_breaks_a_rule_is_refused(
    write: Callable[..., Path], damage: Callable[[str], str], rule: str
) -> None:
    path = write(damage(table()))
    with pytest.raises(BadArtifact, match=rule) as caught:
        read_robustness(path)
    assert str(path) in str(caught.value)
    assert "pipeline.robustness --restart" in str(caught.value)


def test_parts_are_pooled_by_corruption_and_head(write: Callable[..., Path]) -> None:
    """A tile is tested once per seed; the pooled file is ordered like that of a single split."""
    parts = [
        (0, 0, write(table(("t1", "t2")), "a.csv")),
        (0, 1, write(table(("t3",)), "b.csv")),
        (1, 0, write(table(("t3", "t1", "t2")), "c.csv")),
    ]
    read = read_robustness(write(pool(parts), "pooled.csv"))
    rows = [rows for _, _, rows in blocks(read)]
    assert len(rows) == 4
    for each in rows:
        assert list(each["tile_id"]) == ["t1", "t2", "t3", "t3", "t1", "t2"]
        assert list(each["seed"]) == [0, 0, 0, 1, 1, 1]
        assert list(each["fold"]) == [0, 0, 1, 0, 0, 0]
    assert list(rows[0]["predicted"]) == ["b", "a", "a", "b", "b", "a"]


def test_inner_networks_of_a_fold_speak_by_their_mean_probability(write: Callable[..., Path]) -> None:
    """0.75, 0.4 and 0.4 for class a: two networks of three name b, and yet a has the larger mean."""
    networks = [(0, 0, write(table(last=p), f"{i}.csv")) for i, p in enumerate((0.75, 0.4, 0.4))]
    write_heads(networks[0][2].parent, {"decide": "argmax"})
    read = read_robustness(write(pool([*networks, (0, 1, write(table(("t3",)), "other.csv"))]), "pooled.csv"))
    for _, _, rows in blocks(read):
        assert list(rows["tile_id"]) == ["t1", "t2", "t3"]
        assert list(rows["predicted"]) == ["b", "a", "a"]
    read = read_robustness(write(pool(networks[1:]), "pooled.csv"))
    assert set(read["predicted"]) == {"b"}


def write_heads(run: Path, entry: dict[str, object]) -> None:
    """Write heads.json in which every main head has this entry."""
    (run / "heads").mkdir(exist_ok=True)
    (run / "heads" / "heads.json").write_text(json.dumps({"heads": dict.fromkeys(HEADS, entry)}))


def test_inner_networks_decide_with_the_correction_of_their_heads(write: Callable[..., Path]) -> None:
    """The mean of 0.75, 0.4 and 0.4 for class a is 0.52; a share of 0.9 against 0.1 turns the decision to b."""
    networks = [(0, 0, write(table(last=p), f"{i}.csv")) for i, p in enumerate((0.75, 0.4, 0.4))]
    decision = {"strength": 1.0, "log_prior": [math.log(0.9), math.log(0.1)]}
    write_heads(networks[0][2].parent, {"decide": "balanced", "decision": decision})
    read = read_robustness(write(pool(networks), "pooled.csv"))
    for _, _, rows in blocks(read):
        assert list(rows["predicted"]) == ["b", "b"]


def test_pooling_refuses_parts_that_do_not_belong_together(write: Callable[..., Path]) -> None:
    one = write(table(("t1",)), "one.csv")
    with pytest.raises(BadArtifact, match=r"other\.csv: other heads, corruptions or classes than .*one\.csv"):
        pool([(0, 0, one), (0, 1, write(table(("t2",), ("none", "jpeg")), "other.csv"))])
    with pytest.raises(BadArtifact, match=r"b\.csv: other test tiles than the other part of seed 0, fold 0"):
        pool([(0, 0, one), (0, 0, write(table(("t2",)), "b.csv"))])
    with pytest.raises(BadArtifact, match="tile 't1' is in two folds of one seed"):
        pool([(0, 0, one), (0, 1, write(table(("t1", "t2")), "twice.csv"))])
    with pytest.raises(BadArtifact, match=r"torn\.csv: no rows"):
        pool([(0, 0, one), (0, 1, write(table().splitlines()[0], "torn.csv"))])


def test_a_seed_that_is_no_number_is_refused(write: Callable[..., Path]) -> None:
    text = pool([(0, 0, write(table()))]).replace(",0,0\n", ",x,0\n", 1)
    with pytest.raises(BadArtifact, match="not a whole number"):
        read_robustness(write(text, "pooled.csv"))
