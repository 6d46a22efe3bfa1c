"""What the audit finds, and that hostile names cannot break its page."""

import re

import pandas as pd

from pipeline.tiles.audit import Finding, audit, audit_markdown, markdown_cell


def tiles(n: int = 60, **columns: list[object]) -> pd.DataFrame:
    """A clean manifest: two classes, three groups of whole splits, all pixels different."""
    table = pd.DataFrame({"tile_id": [f"t{i:03d}" for i in range(n)]})
    table["label"] = ["AB"[i // 3 % 2] for i in range(n)]
    table["group"] = [f"g{i % 3}" for i in range(n)]
    table["split"] = [("train", "val", "test")[i % 3] for i in range(n)]
    table["sha256"] = [f"{i:064x}" for i in range(n)]
    table["width"], table["height"], table["problem"] = 32, 32, ""
    for name, values in columns.items():
        table[name] = values
    return table


def lines(findings: list[Finding], severity: str = "") -> list[str]:
    return [finding.line for finding in findings if severity in finding.severity]


def test_a_clean_set_has_no_findings() -> None:
    assert audit(tiles(), ignored=[]) == []
    assert "- none" in audit_markdown(tiles(), [], name="x", protocol="grouped")


def test_p7_equal_pixels_in_two_splits_are_an_error_that_names_both() -> None:
    table = tiles()
    table.loc[7, "sha256"] = table.loc[12, "sha256"]  # val and train
    table.loc[7, "label"] = table.loc[12, "label"]
    findings = audit(table, ignored=[])
    assert lines(findings) == ["leakage: the same pixels stand in train, val: t007, t012"]
    assert findings[0].severity == "error"


def test_equal_pixels_with_two_labels_and_within_a_split() -> None:
    table = tiles()
    table.loc[3, "sha256"] = table.loc[0, "sha256"]  # train and train, B and A
    table.loc[7, "sha256"] = table.loc[1, "sha256"]  # val and val, A and A
    table.loc[7, "label"] = "A"
    findings = audit(table, ignored=[])
    assert lines(findings, "warning") == ["the same pixels are labelled A, B: t000, t003"]
    assert lines(findings, "note") == ["the same pixels stand twice in one split: t001, t007"]
    assert lines(findings, "error") == []


def test_worst_findings_come_first() -> None:
    table = tiles()
    table.loc[1, "sha256"] = table.loc[0, "sha256"]
    order = [finding.severity for finding in audit(table.drop(columns="group").assign(group=""), ignored=["a.txt"])]
    assert order == ["error", "warning", "note"]


def test_unreadable_tiles_are_listed_and_compared_with_nothing() -> None:
    table = tiles()
    table.loc[[4, 5], ["sha256", "split", "problem"]] = ["", "", "truncated"]
    table.loc[[4, 5], ["width", "height"]] = 0
    found = lines(audit(table, ignored=[]))
    assert found == ["unreadable, left out (truncated): t004", "unreadable, left out (truncated): t005"]
    page = audit_markdown(table, audit(table, ignored=[]), name="x", protocol="grouped")
    assert "60 tiles, 2 unreadable. Split: grouped." in page


def test_sizes() -> None:
    table = tiles()
    table.loc[0, ["width", "height"]] = [64, 32]
    found = lines(audit(table, ignored=[]), "warning")
    assert found[0] == "tiles have 2 sizes, all are resized to one: 32x32 (59), 64x32 (1)"
    assert "squeezed" in found[1]
    assert audit(tiles().assign(width=150, height=150), ignored=[]) == []


def test_few_tiles_and_absent_classes() -> None:
    table = tiles()
    table.loc[[0, 1], "label"] = "RARE"
    found = lines(audit(table, ignored=[]), "warning")
    assert "class 'RARE' has 2 tiles: its figures say little" in found
    assert "test holds no tile of RARE" in found


def test_classes_bound_to_groups() -> None:
    table = tiles()
    table["label"] = ["EMPTY" if group == "g2" else "AB"[i // 3 % 2] for i, group in enumerate(table["group"])]
    found = lines(audit(table, ignored=[]), "warning")
    assert "class 'EMPTY' stands only in group(s) g2: source and class are bound" in found
    assert "class 'A' stands only in group(s) g0, g1: source and class are bound" in found


def test_p7_groups_across_splits_and_unknown_groups_are_said() -> None:
    table = tiles()
    table.loc[0, "split"] = "test"
    assert lines(audit(table, ignored=[])) == ["1 group(s) stand in several splits (random protocol): results flatter"]
    unknown = audit(tiles().assign(group=""), ignored=[])
    assert lines(unknown) == ["no groups are known: tiles of one slide may stand on both sides of the split"]
    assert unknown[0].severity == "warning"


def test_what_was_passed_over_is_named() -> None:
    found = audit(tiles(), ignored=[f"x{i}.txt" for i in range(20)])
    assert [finding.severity for finding in found] == ["note"]
    assert found[0].line.endswith("x11.txt and 8 more")
    assert len(found[0].tiles) == 20


def test_markdown_counts_are_right() -> None:
    table = tiles(60)
    table.loc[0, ["split", "problem"]] = ["", "bad"]
    page = audit_markdown(table, [], name="x", protocol="grouped").splitlines()
    assert page[page.index("## Tiles by class and split") + 2] == "| class | train | val | test | all |"
    assert "| A | 9 | 10 | 10 | 29 |" in page
    assert "| B | 10 | 10 | 10 | 30 |" in page
    assert "## Tiles by class and group" in page
    many = tiles(60, group=[f"g{i:02d}" for i in range(60)])
    assert "60 groups." in audit_markdown(many, [], name="x", protocol="grouped").splitlines()


def test_hostile_names_cannot_break_the_page() -> None:
    hostile = "<script>alert(1)</script> | a\n# head [x](http://y) `c` *b* _i_ ~~s~~ \\"
    table = tiles()
    table["label"] = [hostile if i % 2 else "A" for i in range(60)]
    table["group"] = [f"{hostile}{i % 3}" for i in range(60)]
    table.loc[[0, 1], "sha256"] = "0" * 64
    table["tile_id"] = [f"{hostile}{i}" for i in range(60)]
    page = audit_markdown(table, audit(table, ignored=[hostile]), name=hostile, protocol="grouped")
    assert not re.search(r"(?<!\\)[<>`\[\]~]", page)
    heads = [line for line in page.splitlines() if line.startswith("#")]
    assert len(heads) == 4
    widths = {len(re.findall(r"(?<!\\)\|", line)) for line in page.splitlines() if line.startswith("|")}
    assert widths == {6}  # both tables here have five columns


def test_markdown_cell_is_one_line() -> None:
    assert markdown_cell("a|b\n\r\t c") == "a\\|b c"
    assert markdown_cell("\\|") == "\\\\\\|"  # an escape in the text does not undo ours
