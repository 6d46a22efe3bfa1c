"""Checklists: all published items, every answer with a source that is there, nothing that no record holds."""

import dataclasses
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from pipeline import report, verify
from pipeline.errors import BadArtifact, StaleInput
from pipeline.publication import checklist
from pipeline.publication.checklist import SOURCES, STATEMENTS, YOU, Item, Name, fill, read_items, state
from pipeline.publication.run_facts import RunFacts, read_facts

N_ITEMS = {"claim": 44, "tripod-ai": 52, "stard-ai": 48}
"""Items with their sub-items, as published."""


@pytest.mark.parametrize("name", SOURCES)
def test_a_table_has_every_item_once_and_asks_the_run_or_the_author(name: Name) -> None:
    items = read_items(name)
    numbers = [item.number for item in items]
    assert len(numbers) == len(set(numbers)) == N_ITEMS[name]
    assert [int(re.match(r"\d+", number)[0]) for number in numbers] == sorted(
        int(re.match(r"\d+", n)[0]) for n in numbers
    )  # type: ignore[index]
    for item in items:
        assert item.section, item
        assert item.title, item
        assert item.facts or item.you, item
        assert set(item.facts) <= set(STATEMENTS), item


def test_every_statement_answers_an_item() -> None:
    assert {fact for name in SOURCES for item in read_items(name) for fact in item.facts} == set(STATEMENTS)


def resolve(run: Path, source: str) -> None:
    """Check that a source is a file of the run, and each of its fields is in that file."""
    file, _, fields = source.partition(": ")
    path = run / file
    assert path.is_file(), source
    for field in filter(None, fields.split(", ")):
        if path.suffix == ".csv":
            column = field.rpartition(" of ")[0] or re.sub(r"\[class\]", "", field)
            table = pd.read_csv(path)
            assert column in table.columns or table["metric"].str.startswith(f"{column}[").any(), source
            continue
        values: list[Any] = [json.loads(path.read_bytes())]
        for key in field.split("."):
            values = [found for value in values for found in (value.values() if key == "*" else [value[key]])]
        assert values, source


@pytest.mark.parametrize("which", ["reported_base", pytest.param("reported_plan", marks=pytest.mark.slow)])
def test_every_source_is_there(which: str, request: pytest.FixtureRequest) -> None:
    run = request.getfixturevalue(which)
    facts = read_facts(run)
    answered = {name: found for name in STATEMENTS if (found := state(facts, name)) is not None}
    assert set(STATEMENTS) - set(answered) <= {"baselines", "robustness", "resolution", "label_errors"}
    for name, statement in answered.items():
        assert statement.sources, name
        for source in statement.sources:
            resolve(run, source)


def test_numbers_are_those_of_the_records(reported_base: Path) -> None:
    facts = read_facts(reported_base)
    table = pd.read_csv(reported_base / "comparison.csv").set_index(["head", "split", "metric"])
    score = table.loc[("softmax", "test", "accuracy")]
    performance, excluded = state(facts, "performance"), state(facts, "excluded")
    assert performance is not None
    assert excluded is not None
    assert f"accuracy {score['value']:.3f} ({score['low']:.3f} to {score['high']:.3f})" in performance.text
    assert re.findall(r"\d+", excluded.text) == ["32", "0"]
    assert "biased upwards" in (state(facts, "limitations") or excluded).text  # the small run has a random split


def test_what_no_record_holds_is_left_to_the_author(reported_base: Path) -> None:
    facts = read_facts(reported_base)
    answers = {answer.item.number: answer for answer in fill(facts, read_items("claim"))}
    assert answers["44"].status == YOU  # funding
    assert answers["30"].status == YOU  # this run has no robustness.csv
    assert (answers["30"].text, answers["30"].source) == (YOU, "-")
    assert answers["25"].status == "from the run"
    assert answers["7"].status == "in part"
    assert f"{YOU}: " in answers["7"].text


def test_a_statement_without_its_record_is_none(reported_base: Path) -> None:
    facts = read_facts(reported_base)
    bare = dataclasses.replace(facts, content={"comparison.csv.json": facts.content["comparison.csv.json"]})
    silent = {"data", "excluded", "classes", "assignment", "disjoint", "training", "software", "output", "prediction"}
    assert {name for name in silent if state(bare, name) is not None} == set()
    (answer,) = fill(bare, [Item("1", "s", "t", ("performance", "training"), "")])
    assert (answer.status, answer.text.endswith(YOU)) == ("in part", True)


def with_content(facts: RunFacts, file: str, value: Mapping[str, Any]) -> RunFacts:
    """Return facts whose JSON file has other content."""
    return dataclasses.replace(facts, content={**facts.content, file: value})


def test_content_that_breaks_its_schema_is_an_error(reported_base: Path) -> None:
    facts = with_content(read_facts(reported_base), "audit.json", {"n_tiles": "many", "n_unreadable": 1, "findings": 3})
    with pytest.raises(BadArtifact):
        state(facts, "limitations")


def test_an_edited_file_is_refused(reported_run: Path) -> None:
    path = reported_run / "model.json"
    path.write_text(path.read_text().replace("resnet10", "resnet50"))
    with pytest.raises(StaleInput):
        read_facts(reported_run)
    with pytest.raises(BadArtifact):
        read_facts(reported_run, force=True)


def test_the_source_of_a_large_table_is_its_own_record(reported_base: Path) -> None:
    facts = read_facts(reported_base)
    large = with_content(facts, "predictions.parquet.json", facts.content["predictions.csv.json"])
    found = state(large, "software")
    assert found is not None
    assert found.sources == ("predictions.parquet.json: versions",)


def test_report_writes_checklists_that_verify_knows(
    reported_run: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["--run", str(reported_run), "--draws", "100", "--map", "none", "--gallery", "0"]
    before = (reported_run / "comparison.csv.json").read_bytes()
    assert report.main([*words, "--checklist", "claim", "stard-ai"]) == 0
    assert (reported_run / "comparison.csv.json").read_bytes() == before  # the comparison is the same without them
    page = (reported_run / "checklist-claim.md").read_text()
    rows = [line for line in page.splitlines() if re.match(r"\| \d", line)]
    assert len(rows) == N_ITEMS["claim"]
    record = json.loads((reported_run / "checklist-claim.md.json").read_bytes())
    assert record["details"]["44"] == YOU
    assert verify.main(["--run", str(reported_run)]) == 0
    capfd.readouterr()
    monkeypatch.setattr(checklist, "fill", lambda *_: pytest.fail("it is current"))
    assert report.main([*words, "--checklist", "claim"]) == 0
    monkeypatch.undo()
    assert report.main([*words[:2], "--draws", "101", *words[4:]]) == 0
    assert verify.main(["--run", str(reported_run)]) == 1  # the checklists quote another report
    assert "checklist-claim.md" in capfd.readouterr().err
