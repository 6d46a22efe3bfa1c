from pathlib import Path

import pytest

from pipeline.errors import BadArtifact
from pipeline.storage.csv_files import read_table


def read(path: Path):
    return read_table(path, texts=("name", "group"), refuse=lambda rule: BadArtifact(f"{path}: {rule}"))


def test_texts_stay_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("name,group,p\n007,NA,0.5\nnull,,1\n")
    table = read(path)
    assert table["name"].tolist() == ["007", "null"]
    assert table["group"].tolist() == ["NA", ""]
    assert table["p"].tolist() == [0.5, 1.0]


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("", "not a readable CSV file"),
        ("name,group,p\n", "no rows"),
        ("group,name,p\na,b,1\n", "its first columns are not name, group"),
        ("name\na\n", "its first columns are not name, group"),
        ('name,group\n"a,b\n', "not a readable CSV file"),
    ],
)
def test_a_table_that_breaks_a_rule_is_refused_in_one_line(tmp_path: Path, text: str, rule: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text(text)
    with pytest.raises(BadArtifact, match=rule) as caught:
        read(path)
    assert "\n" not in str(caught.value)


def test_a_missing_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadArtifact, match="not a readable CSV file"):
        read(tmp_path / "none.csv")
