"""The model card: front matter that YAML and the Hub can read, scores with intervals, placeholders for licences."""

import dataclasses
import json
import math
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from pipeline import export, verify
from pipeline.publication.checklist import YOU
from pipeline.publication.model_card import model_card
from pipeline.publication.run_facts import read_facts
from pipeline.storage import records


def front_matter(card: str) -> dict[str, Any]:
    """Return the metadata: each line is a name and a JSON value, which is YAML too."""
    start, block, _ = re.split(r"^---$", card, maxsplit=2, flags=re.MULTILINE)
    assert start == ""
    return {name: json.loads(value) for name, _, value in (line.partition(": ") for line in block.strip().split("\n"))}


@pytest.mark.parametrize("which", ["reported_base", pytest.param("reported_plan", marks=pytest.mark.slow)])
def test_scores_are_those_of_the_report(which: str, request: pytest.FixtureRequest) -> None:
    run = request.getfixturevalue(which)
    card = model_card(read_facts(run))
    table = pd.read_csv(run / "comparison.csv").set_index(["head", "split", "metric"])["value"]
    (entry,) = front_matter(card)["model-index"]
    (result,) = entry["results"]
    assert result["dataset"]["split"] == "test"
    by_name = {metric["name"]: metric for metric in result["metrics"]}
    assert len(by_name) == 12  # three heads and their mean, three metrics
    protocol = records.read_record(run / "comparison.csv")["details"]["protocol"]
    (name,) = (each for each in by_name if each.startswith(f"macro-F1 of SVM, {protocol} split"))
    assert by_name[name]["value"] == pytest.approx(table["svm", "test", "macro_f1"], abs=5e-5)
    assert re.search(r"95 % interval \(\d\.\d{3} to \d\.\d{3}\)$", name)
    assert f"{table['svm', 'test', 'macro_f1']:.3f}" in card


def test_a_yaml_reader_agrees(reported_base: Path) -> None:
    yaml = pytest.importorskip("yaml")
    facts = read_facts(reported_base)
    manifest = facts.content["manifest.csv.json"]
    odd = {**manifest, "details": {**manifest["details"], "dataset": 'a: "b" # \u0085 \x7f {c}\n---'}}
    card = model_card(dataclasses.replace(facts, content={**facts.content, "manifest.csv.json": odd}))
    found = front_matter(card)
    assert yaml.safe_load(re.split(r"^---$", card, maxsplit=2, flags=re.MULTILINE)[1]) == found
    assert found["model-index"][0]["results"][0]["dataset"]["name"] == 'a: "b" # ? ? {c}\n---'


def test_undefined_scores_are_left_out(reported_base: Path) -> None:
    facts = read_facts(reported_base)
    blank = [dataclasses.replace(score, value=math.nan) for score in facts.scores]
    found = front_matter(model_card(dataclasses.replace(facts, scores=blank)))
    assert found["model-index"][0]["results"][0]["metrics"] == []


def test_the_command_writes_the_card_and_leaves_a_page_of_the_user_alone(
    reported_run: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ["--run", str(reported_run), "--to", "model-card"]
    readme = reported_run / "README.md"
    readme.write_text("mine")
    assert verify.main(["--run", str(reported_run)]) == 0
    assert export.main(words) == 2
    assert readme.read_text() == "mine"
    assert export.main([*words, "--restart"]) == 0
    card = readme.read_text()
    assert front_matter(card)["license"] == "other"
    assert f"Licence of the model: {YOU}" in card
    assert export.main(words) == 0
    assert verify.main(["--run", str(reported_run)]) == 0
    with readme.open("a") as file:
        file.write("edited")
    capfd.readouterr()
    assert verify.main(["--run", str(reported_run)]) == 1
    assert "README.md" in capfd.readouterr().err


def test_a_run_without_a_report_is_one_line(fitted_base: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert export.main(["--run", str(fitted_base / "run"), "--to", "model-card"]) == 1
    assert "comparison.csv" in capfd.readouterr().err
