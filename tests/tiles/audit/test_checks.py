"""What the audit finds, and that hostile names cannot break its page."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.tiles.audit.checks import audit, audit_markdown, markdown_cell
from pipeline.tiles.audit.finding import Finding
from pipeline.tiles.audit.measure import QUALITY, Measurements, measure
from pipeline.tiles.datasets.sources import TileSet


def tiles(n: int = 60, **columns: list[object]) -> pd.DataFrame:
    """A clean manifest: two classes, three groups of whole splits, all pixels different."""
    table = pd.DataFrame({"tile_id": [f"t{i:03d}" for i in range(n)]})
    table["label"] = ["AB"[i // 3 % 2] for i in range(n)]
    table["group"] = [f"g{i % 3}" for i in range(n)]
    table["split"] = [("train", "val", "test")[i % 3] for i in range(n)]
    table["sha256"] = [f"{i:064x}" for i in range(n)]
    table["path"] = table["tile_id"] + ".png"
    table["width"], table["height"], table["problem"] = 32, 32, ""
    for name, values in columns.items():
        table[name] = values
    return table


def measured(n: int, copies: dict[int, int] | None = None) -> Measurements:
    """Measurements of noise; tile i is a mirrored copy of tile copies[i]."""
    seeds = {i: (copies or {}).get(i, i) for i in range(n)}
    tiles = [np.random.default_rng(seed).integers(0, 256, (16, 16, 3), dtype=np.uint8) for seed in seeds.values()]
    found = [measure(pixels if seeds[i] == i else pixels[:, ::-1]) for i, pixels in enumerate(tiles)]
    quality = pd.DataFrame([values for _, _, values in found], columns=list(QUALITY))
    return Measurements(np.stack([f[0] for f in found]), np.stack([f[1] for f in found]), quality, [""] * n)


def look(
    table: pd.DataFrame,
    *,
    copies: dict[int, int] | None = None,
    sides: pd.Series | None = None,
    protocol: str = "grouped",
    ignored: list[str] | None = None,
) -> list[Finding]:
    """The audit of a table over measured noise."""
    return audit(
        table,
        measured(len(table), copies),
        TileSet("t", Path(), table, ignored=ignored or []),
        sides=table["split"] if sides is None else sides,
        protocol=protocol,
    )


def page_of(table: pd.DataFrame, findings: list[Finding], *, name: str, protocol: str) -> str:
    return audit_markdown(table, findings, measurements=measured(len(table)), name=name, protocol=protocol)


def lines(findings: list[Finding], severity: str = "") -> list[str]:
    return [finding.line for finding in findings if severity in finding.severity]


def test_a_clean_set_has_no_findings() -> None:
    assert look(tiles()) == []
    assert "- none" in page_of(tiles(), [], name="x", protocol="grouped")


@pytest.mark.fault("the same tile twice, or in two splits")
def test_p7_equal_pixels_in_two_splits_are_an_error_that_names_both() -> None:
    table = tiles()
    table.loc[7, "sha256"] = table.loc[12, "sha256"]  # val and train
    table.loc[7, "label"] = table.loc[12, "label"]
    findings = look(table)
    assert lines(findings) == ["leakage: the same pixels are in train, val: t007, t012"]
    assert findings[0].severity == "error"


def test_equal_pixels_with_two_labels_and_within_a_split() -> None:
    table = tiles()
    table.loc[3, "sha256"] = table.loc[0, "sha256"]  # train and train, B and A
    table.loc[7, "sha256"] = table.loc[1, "sha256"]  # val and val, A and A
    table.loc[7, "label"] = "A"
    findings = look(table)
    assert lines(findings, "warning") == ["the same pixels are labelled A, B: t000, t003"]
    assert lines(findings, "note") == ["two tiles with the same pixels are on one side of the split: t001, t007"]
    assert lines(findings, "error") == []


def test_worst_findings_come_first() -> None:
    table = tiles()
    table.loc[1, "sha256"] = table.loc[0, "sha256"]
    order = [finding.severity for finding in look(table.drop(columns="group").assign(group=""), ignored=["a.txt"])]
    assert order == ["error", "warning", "note"]


def test_unreadable_tiles_are_listed_and_compared_with_nothing() -> None:
    table = tiles()
    table.loc[[4, 5], ["sha256", "split", "problem"]] = ["", "", "truncated"]
    table.loc[[4, 5], ["width", "height"]] = 0
    found = lines(look(table))
    assert found == ["2 tile(s) are unreadable, left out (truncated: 2): t004, t005"]
    page = page_of(table, look(table), name="x", protocol="grouped")
    assert "60 tiles, 2 unreadable. Split: grouped." in page


def test_sizes() -> None:
    table = tiles()
    table.loc[0, ["width", "height"]] = [64, 32]
    found = lines(look(table), "warning")
    assert found[0] == "tiles have 2 sizes, all are resized to one: 32x32 (59), 64x32 (1)"
    assert "distorted" in found[1]
    assert look(tiles().assign(width=150, height=150)) == []


def test_few_tiles_and_absent_classes() -> None:
    table = tiles()
    table.loc[[0, 1], "label"] = "RARE"
    found = lines(look(table), "warning")
    assert "class 'RARE' has 2 tiles: its results are uncertain" in found
    assert "test has no tile of RARE" in found


def test_classes_bound_to_groups() -> None:
    table = tiles()
    table["label"] = ["EMPTY" if group == "g2" else "AB"[i // 3 % 2] for i, group in enumerate(table["group"])]
    found = lines(look(table), "warning")
    text = "3 class(es) are in one or two groups only, bound to their stain: 'A' (g0, g1), 'B' (g0, g1), "
    assert text + "'EMPTY' (g2)" in found
    assert "1 of 3 groups have one class only (EMPTY 1)" in found
    assert "train has no tile of EMPTY; val has no tile of EMPTY; test has no tile of A, B" in found


def test_p7_groups_across_splits_and_unknown_groups_are_said() -> None:
    table = tiles()
    table.loc[0, "split"] = "test"
    assert lines(look(table)) == ["1 group(s) are in several splits (random protocol): results are biased upwards"]
    unknown = look(tiles().assign(group=""))
    assert lines(unknown) == ["no groups are known: tiles of one slide may be on both sides of the split"]
    assert unknown[0].severity == "warning"


def test_what_was_passed_over_is_named() -> None:
    found = look(tiles(), ignored=[f"x{i}.txt" for i in range(20)])
    assert [finding.severity for finding in found] == ["note"]
    assert found[0].line.endswith("x11.txt and 8 more")
    assert len(found[0].tiles) == 20


def test_markdown_counts_are_right() -> None:
    table = tiles(60)
    table.loc[0, ["split", "problem"]] = ["", "bad"]
    page = page_of(table, [], name="x", protocol="grouped").splitlines()
    assert page[page.index("## Tiles by class and split") + 2] == "| class | train | val | test | all |"
    assert "| A | 9 | 10 | 10 | 29 |" in page
    assert "| B | 10 | 10 | 10 | 30 |" in page
    assert "## Tiles by class and group" in page
    many = tiles(60, group=[f"g{i:02d}" for i in range(60)])
    assert "60 groups." in page_of(many, [], name="x", protocol="grouped").splitlines()


def test_hostile_names_cannot_break_the_page() -> None:
    hostile = "<script>alert(1)</script> | a\n# head [x](http://y) `c` *b* _i_ ~~s~~ \\"
    table = tiles()
    table["label"] = [hostile if i % 2 else "A" for i in range(60)]
    table["group"] = [f"{hostile}{i % 3}" for i in range(60)]
    table.loc[[0, 1], "sha256"] = "0" * 64
    table["tile_id"] = [f"{hostile}{i}" for i in range(60)]
    page = page_of(table, look(table, ignored=[hostile]), name=hostile, protocol="grouped")
    assert not re.search(r"(?<!\\)[<>`\[\]~]", page)
    heads = [line for line in page.splitlines() if line.startswith("#")]
    assert len(heads) == 5
    widths = {len(re.findall(r"(?<!\\)\|", line)) for line in page.splitlines() if line.startswith("|")}
    assert widths == {6, 8}  # counts have five columns, measurements seven


def test_markdown_cell_is_one_line() -> None:
    assert markdown_cell("a|b\n\r\t c") == "a\\|b c"
    assert markdown_cell("\\|") == "\\\\\\|"  # an escape in the text does not undo ours


ALIKE = "almost the same pixels (turned, mirrored, re-encoded, resized or brightened)"


@pytest.mark.parametrize(
    ("protocol", "severity"), [("grouped", "error"), ("logo", "error"), ("given", "error"), ("random", "warning")]
)
def test_p7_a_mirrored_copy_in_another_split(protocol: str, severity: str) -> None:
    found = look(tiles(), copies={12: 1}, protocol=protocol)  # train and val, A and A
    assert lines(found) == [f"leakage: {ALIKE} are in train, val: t001, t012"]
    assert found[0].severity == severity
    assert found[0].tiles == ["t001", "t012"]


def test_copies_with_two_labels_and_on_one_side() -> None:
    found = look(tiles(), copies={3: 0, 7: 1, 13: 1})  # train A and B; val A, A and A
    assert lines(found, "error") == []
    assert lines(found, "warning") == [f"{ALIKE} are labelled A, B: t000, t003"]
    assert lines(found, "note") == [f"two tiles with {ALIKE} are on one side of the split: t001, t007, t013"]


def test_a_copy_of_one_of_two_equal_tiles_belongs_to_both() -> None:
    table = tiles()
    table.loc[7, "sha256"] = table.loc[1, "sha256"]
    found = look(table, copies={7: 1, 12: 1})
    assert lines(found, "error") == [f"leakage: {ALIKE} are in train, val: t001, t007, t012"]


def test_many_copies_are_one_finding_with_their_number() -> None:
    found = look(tiles(), copies={i: i - 30 for i in range(36, 60)}, sides=tiles()["tile_id"], protocol="random")
    pairs = [finding for finding in found if "leakage" in finding.what]
    assert len(pairs) == 1
    assert pairs[0].what == f"leakage: 24 sets of tiles (48 tiles) with {ALIKE} can be on two sides of a split"
    assert pairs[0].line.endswith(": t006, t036; t007, t037; t008, t038; t009, t039 and 20 more")
    assert pairs[0].sets[23] == ["t029", "t059"]
    assert len(pairs[0].tiles) == 48


def test_equal_tiles_are_an_error_under_every_protocol() -> None:
    table = tiles()
    table.loc[12, "sha256"] = table.loc[1, "sha256"]
    table["split"] = "test"
    for sides in (table["tile_id"], table["group"]):
        found = look(table, sides=sides, protocol="random")
        assert lines(found, "error") == ["leakage: the same pixels can be on two sides of a split: t001, t012"]


def test_a_plan_tests_every_tile_and_lacks_no_class() -> None:
    table = tiles().assign(split="test")
    assert look(table, sides=table["group"]) == []
    page = page_of(table, [], name="x", protocol="logo").splitlines()
    assert "| class | test | all |" in page


def test_the_worst_data_set_has_a_page_of_findings_not_a_book() -> None:
    rng = np.random.default_rng(0)
    table = tiles(120, label=[f"c{i % 30}" for i in range(120)], group=[f"g{i % 7}" for i in range(120)])
    table["path"] = [f"c{i % 30}/s_x{32 * i}_y0.png" for i in range(120)]
    table["width"] = rng.integers(20, 60, 120)
    table.loc[range(90, 100), ["sha256", "split", "problem"]] = ["", "", "truncated"]
    table.loc[range(60, 70), "sha256"] = table.loc[range(10), "sha256"].to_numpy()
    found = look(table, copies={i: i - 20 for i in range(30, 60)}, protocol="random", ignored=["a.txt"])
    assert len(found) <= 15
    assert max(len(line) for line in lines(found)) < 1500
