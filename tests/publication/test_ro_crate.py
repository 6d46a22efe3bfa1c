"""The crate of a run: every file with size and hash, every step with inputs and outputs, no reference into the void."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline import export, verify
from pipeline.publication.ro_crate import FILE, VERSION
from pipeline.storage import records
from pipeline.storage.atomic import sha256_file


def exported(run: Path) -> dict[str, dict[str, Any]]:
    """Return the entities of the crate of a run by their identifiers."""
    assert export.main(["--run", str(run), "--to", "ro-crate"]) == 0
    content = json.loads((run / FILE).read_bytes())
    assert content["@context"] == f"{VERSION}/context"
    entities = {entity["@id"]: entity for entity in content["@graph"]}
    assert len(entities) == len(content["@graph"])
    return entities


def links(value: Any) -> list[str]:
    """Return the identifiers that a property names."""
    return [each["@id"] for each in (value if isinstance(value, list) else [value])]


def test_files_steps_and_references(reported_run: Path) -> None:
    entities = exported(reported_run)
    root = entities["./"]
    assert entities[FILE]["about"] == {"@id": "./"}
    assert entities[FILE]["conformsTo"] == {"@id": VERSION}
    files = {name: entity for name, entity in entities.items() if entity["@type"] == "File"}
    assert set(links(root["hasPart"])) == set(files)
    on_disk = {path.relative_to(reported_run).as_posix() for path in reported_run.rglob("*") if path.is_file()}
    assert on_disk - set(files) <= {FILE, f"{FILE}.json", ".lock"}
    for name, entity in files.items():
        assert int(entity["contentSize"]) == (reported_run / name).stat().st_size
        if "identifier" in entity:
            assert entity["identifier"] == f"sha256:{sha256_file(reported_run / name)}"
    for entity in entities.values():
        for term in ("object", "result", "instrument", "license", "about"):
            if term in entity:
                assert set(links(entity[term])) <= set(entities), entity
                assert not isinstance(entity[term], list) or len(entity[term]) > 1
    step = entities["#extract-embeddings.h5"]
    assert set(links(step["object"])) == {"manifest.csv", "model.safetensors"}
    assert links(step["result"]) == ["embeddings.h5"]
    assert step["endTime"] == records.read_record(reported_run / "embeddings.h5")["created_utc"]
    assert verify.main(["--run", str(reported_run)]) == 0
    assert str(reported_run) not in (reported_run / FILE).read_text()  # nothing names this machine


@pytest.mark.slow
def test_the_parts_of_a_plan_are_in_it(reported_plan: Path) -> None:
    entities = exported(reported_plan)
    names = [name for name in entities if name.endswith("model.safetensors") and not name.startswith("#")]
    assert len(names) == 2
    pooled = entities["#fit_heads-predictions.csv"]
    assert {"parts/grouped-seed0-fold0/predictions.csv", "parts/grouped-seed0-fold1/predictions.csv"} <= set(
        links(pooled["object"])
    )


def test_a_crate_is_stale_after_a_change(reported_run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    exported(reported_run)
    before = (reported_run / FILE).read_bytes()
    assert export.main(["--run", str(reported_run), "--to", "model-card"]) == 0
    exported(reported_run)
    assert (reported_run / FILE).read_bytes() != before  # now with the card
    (reported_run / "README.md").write_text("another")
    assert verify.main(["--run", str(reported_run)]) == 1
    assert FILE in capfd.readouterr().err


def test_links_in_the_run_lead_nowhere(reported_run: Path, tmp_path: Path) -> None:
    """P5: a link is no file of the crate."""
    (tmp_path / "secret.csv").write_text("s")
    (reported_run / "per_group.csv").unlink()
    (reported_run / "per_group.csv").symlink_to(tmp_path / "secret.csv")
    assert "per_group.csv" not in exported(reported_run)


@pytest.mark.parametrize("more", [("--out", "x.json"), ("--embeddings", "x.h5")])
def test_what_is_refused(reported_base: Path, more: tuple[str, ...]) -> None:
    assert export.main(["--run", str(reported_base), "--to", "ro-crate", *more]) == 2
