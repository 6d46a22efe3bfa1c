"""The report on fabricated run folders: what it writes, what it leaves out, what it refuses."""

import csv
import dataclasses
import hashlib
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from pipeline import report
from pipeline.cli.options import Common
from pipeline.comparison import report_figures, run_files
from pipeline.comparison.explorer import nearest
from pipeline.errors import BadArtifact, BadInput, StaleInput, UsageError
from pipeline.figures.plotting import Figure
from pipeline.report import ReportOptions
from pipeline.storage import atomic, freshness, records

CLASSES = ("01_TUMOR", "02_STROMA", "03_COMPLEX", "04_LYMPHO")
FAST = ReportOptions(draws=200, map="pca", gallery=4)
SKILL = {"softmax": 1.6, "svm": 2.4, "xgboost": 1.4}


def fabricate(
    run: Path,
    *,
    classes: tuple[str, ...] = CLASSES,
    protocol: str = "grouped",
    groups: dict[str, tuple[str, ...]] | None = None,
    n_tiles: int = 160,
    skill: dict[str, float] = SKILL,
    test_classes: tuple[str, ...] | None = None,
    credit: str | None = "Somebody, CC BY 4.0",
) -> Path:
    """Write predictions.csv with plausible predictions of some heads, and its record; return the run folder."""
    rng = np.random.default_rng(5)
    groups = groups or {"train": ("a", "b", "c"), "val": ("d",), "test": tuple("efghij")}
    splits = rng.permutation(np.repeat(["train", "val", "test"], [n_tiles // 2, n_tiles // 5, n_tiles * 3 // 10]))
    tiles = []
    for i, split in enumerate(splits):
        names = test_classes if split == "test" and test_classes else classes
        label = names[i % len(names)]
        tiles.append((f"{label}/tile_{i:04d}", groups[split][i % len(groups[split])], split, label))
    rows = []
    noise = {group: rng.normal(0, 0.7, len(classes)) for names in groups.values() for group in names}
    for head, strength in skill.items():
        for tile_id, group, split, label in tiles:
            scores = rng.normal(0, 1, len(classes)) + noise[group]
            scores[classes.index(label)] += strength * (2 if split == "train" else 1)
            p = np.exp(scores) / np.exp(scores).sum()
            predicted = classes[int(p.argmax())]
            rows.append([tile_id, group, split, label, head, predicted, *(f"{value:.9g}" for value in p)])
    run.mkdir(parents=True, exist_ok=True)
    path = run / "predictions.csv"
    with path.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerow(["tile_id", "group", "split", "label", "head", "predicted", *(f"p_{c}" for c in classes)])
        writer.writerows(rows)
    details = {"protocol": protocol, "dataset": "made up", "credit": credit, "calibrated_on": "val", "n_skipped": 2}
    record_predictions(run, details)
    return run


def record_predictions(run: Path, details: dict, inputs: tuple[Path, ...] = ()) -> None:
    records.write_record(
        records.Artifact(run / "predictions.csv", "predictions/1.0", "fit_heads", {"minutes": 5}, inputs, seed=0),
        outputs=[path for path in [run / "heads/heads.json"] if path.is_file()],
        details=details,
    )


def add_context(run: Path) -> Path:
    """Put heads.json, history.csv, model.json, audit.json, tiles with their manifest and figures into a run."""
    entry = {
        "chosen": {"C": 10.0, "kernel": "rbf"},
        "search": [{"params": {"C": c}, "val_nll": 0.5 + 0.01 * c, "val_accuracy": 0.8, "seconds": 1} for c in (1, 10)],
        "calibration": {"method": "temperature", "params": {"temperature": 1.37}},
        "fit_seconds": 3.21,
        "search_seconds": 61.5,
        "predict_tiles_per_second": 12345.6,
        "bytes": 2_345_678,
        "notes": ["early stopping after 40 rounds"],
    }
    heads = {"classes": list(CLASSES), "heads": dict.fromkeys(SKILL, entry), "source_probe": {"reason": "made up"}}
    heads["separability"] = {name: {"scatter_ratio": 1.0, "accuracy": 0.9, "n_tiles": 9} for name in ("train", "val")}
    atomic.write_text(run / "heads/heads.json", atomic.to_json(heads))
    epochs = [f"{e},0.001,{1 / e},{1 - 0.4 / e},{1.2 / e},{1 - 0.5 / e},3.0,100.0" for e in (1, 2, 3)]
    header = "epoch,lr,train_loss,train_accuracy,val_loss,val_accuracy,seconds,images_per_second"
    atomic.write_text(run / "history.csv", "\n".join([header, *epochs]) + "\n")
    model = {"arch": "resnet50", "recipe": {"name": "tutorial", "lr": 0.001}, "metrics": {"best_epoch": 3}, "seed": 0}
    atomic.write_text(run / "model.json", atomic.to_json(model))
    findings = [{"severity": "warning", "what": "tiles have 2 sizes", "tiles": ["x", "y"]}]
    atomic.write_text(run / "audit.json", atomic.to_json({"findings": findings}))
    rng = np.random.default_rng(0)
    (run / "figures").mkdir(exist_ok=True)
    for name in ("history", "batch", "classes"):
        Image.fromarray(rng.integers(0, 255, (20, 30, 3), dtype=np.uint8)).save(run / f"figures/{name}.png")
    lines = ["tile_id,path,label,group,split,sha256,width,height,problem"]
    with (run / "predictions.csv").open(encoding="utf-8") as handle:
        tiles = {row["tile_id"]: row for row in csv.DictReader(handle)}
    for tile_id, row in tiles.items():
        file = run / "tiles" / f"{tile_id}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(120, 255, (24, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(file)
        digest = hashlib.sha256(b"24x24:" + pixels.tobytes()).hexdigest()
        values = (tile_id, f"{tile_id}.png", row["label"], row["group"], row["split"], digest, "24", "24", "")
        lines.append(",".join(values))
    atomic.write_text(run / "manifest.csv", "\n".join(lines) + "\n")
    details = {"root": "tiles", "dataset": "made up", "protocol": "grouped"}
    records.write_record(records.Artifact(run / "manifest.csv", "manifest/1.0", "prepare"), details=details)
    return run


def fake_embeddings(run: Path) -> SimpleNamespace:
    """Return what `read_embeddings` would, for the tiles of predictions.csv."""
    with (run / "predictions.csv").open(encoding="utf-8") as handle:
        tiles = list({row["tile_id"]: row for row in csv.DictReader(handle)}.values())
    rng = np.random.default_rng(1)
    label = np.array([CLASSES.index(row["label"]) for row in tiles], np.int16)
    return SimpleNamespace(
        features=(rng.normal(size=(len(tiles), 64)) + 1.2 * rng.normal(size=(4, 64))[label]).astype(np.float32),
        tile_id=[row["tile_id"] for row in tiles],
        group=[row["group"] for row in tiles],
        label=label,
        split=np.array([("train", "val", "test").index(row["split"]) for row in tiles], np.uint8),
        status=np.zeros(len(tiles), np.uint8),
        classes=list(CLASSES),
    )


def write(run: Path, options: ReportOptions = FAST, **common: object) -> str:
    """Run the report; return comparison.md with its escapes taken out."""
    assert report.run(Common(run=run, **common), options) == 0
    return re.sub(r"\\(.)", r"\1", (run / "comparison.md").read_text())


def rows_of(run: Path) -> list[dict[str, str]]:
    with (run / "comparison.csv").open(encoding="utf-8") as handle:
        return list(csv.DictReader(handle))


@pytest.fixture(autouse=True)
def blank_figures(monkeypatch):
    """Most of a report's time goes into pixels that these tests do not look at; `full_run` is drawn before this."""
    monkeypatch.setattr(Figure, "savefig", lambda self, path, **_: Image.new("RGB", (1, 1)).save(path, "PNG"))


@pytest.fixture(scope="session")
def full_run(tmp_path_factory):
    """A run with all context, reported once; tests only read it."""
    run = add_context(fabricate(tmp_path_factory.mktemp("full") / "run"))
    (run / "embeddings.h5").write_bytes(b"stands for an embeddings file")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_files, "read_embeddings", lambda path, **_: fake_embeddings(path.parent))
        for module in (report_figures, nearest):
            patch.setattr(module, "feature_rows", lambda path, rows: fake_embeddings(path.parent).features[rows])
        write(run, ReportOptions(draws=200, map="tsne", gallery=4))
    return run


# -- what is written --------------------------------------------------------------------------------------------


def test_comparison_csv_holds_every_head_split_metric_and_cost(full_run):
    rows = rows_of(full_run)
    assert list(rows[0]) == ["head", "split", "metric", "value", "low", "high", "n", "n_groups"]
    keys = [(row["head"], row["split"], row["metric"]) for row in rows]
    assert len(set(keys)) == len(keys) == 3 * 3 * (7 + 3 * 4) + 3 * 4
    by_key = dict(zip(keys, rows, strict=True))
    accuracy = by_key["svm", "test", "accuracy"]
    assert float(accuracy["low"]) <= float(accuracy["value"]) <= float(accuracy["high"])
    assert (accuracy["n"], accuracy["n_groups"]) == ("48", "6")
    assert by_key["svm", "val", "accuracy"]["low"] == ""  # one group: no interval
    assert by_key["svm", "test", "recall[01_TUMOR]"]["low"] == ""
    assert by_key["xgboost", "", "bytes"]["value"] == "2345678"


def test_accuracy_is_that_of_predictions_csv(full_run):
    with (full_run / "predictions.csv").open(encoding="utf-8") as handle:
        rows = [r for r in csv.DictReader(handle) if r["head"] == "xgboost" and r["split"] == "test"]
    expected = sum(row["label"] == row["predicted"] for row in rows) / len(rows)
    found = [r for r in rows_of(full_run) if (r["head"], r["split"], r["metric"]) == ("xgboost", "test", "accuracy")]
    assert float(found[0]["value"]) == pytest.approx(expected, abs=1e-9)


def test_the_report_has_its_parts_in_order_and_leaves_nothing_out(full_run):
    text = (full_run / "comparison.md").read_text()
    titles = re.findall(r"^## (.*)$", text, flags=re.MULTILINE)
    assert titles[:3] == ["Result", "Explore the test tiles", "Results on the test rows"]
    assert titles[-2:] == ["Credit and use", "Not in this report"]
    assert re.findall(r": (\S+) was left out", text) == ["robustness.csv"]
    assert "Somebody, CC BY 4.0" in text
    assert "research use only" in text
    assert "2 tiles could not be read" in text
    plots = ("confusion", "per_class_f1", "reliability", "selective", "embedding_map", "history")
    for name in (*plots, "errors", "label_errors", "batch", "classes"):
        assert f"(figures/{name}.png)" in text
        Image.open(full_run / f"figures/{name}.png").load()


class Page(HTMLParser):
    """Collects what a browser would load or run."""

    def __init__(self):
        super().__init__()
        self.tags, self.addresses, self.text = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href", "srcset", "style", "action")]
        self.tags += [name for name, _ in attrs if name.startswith("on")]

    def handle_data(self, data):
        self.text.append(data)


def parse(run: Path) -> Page:
    page = Page()
    page.feed((run / "report.html").read_text(encoding="utf-8"))
    return page


def test_the_html_needs_no_other_file_and_has_the_text_of_the_markdown(full_run):
    page = parse(full_run)
    assert page.tags.count("img") == 11
    assert not {"link", "iframe", "object"} & set(page.tags)
    assert page.tags.count("script") == 2  # the data and the script of the explorer
    assert all(address.startswith(("data:image/webp;base64,", "#part-")) for address in page.addresses)
    sentences = {" ".join(part.split()) for part in page.text}
    for line in re.sub(r"\\(.)", r"\1", (full_run / "comparison.md").read_text()).splitlines():
        if line.startswith(("- ", "## ", "> **")):
            assert line.lstrip("-#> ").strip("*") in sentences


def test_the_record_names_inputs_outputs_and_the_unit_of_the_intervals(full_run):
    record = records.check_artifact(full_run / "comparison.csv", schema="comparison/1.0")
    assert freshness.damaged_outputs(full_run / "comparison.csv", record) == []
    assert {"predictions.csv", "heads/heads.json", "embeddings.h5", "figures/batch.png"} <= set(record["inputs"])
    assert {"comparison.md", "report.html", "figures/errors.png"} <= set(record["outputs"])
    assert record["stage"] == "report"
    facts = {"intervals": "group", "n_draws": 200, "verdict": "too_few_units", "recommended": None}
    assert record["details"].items() >= facts.items()


def test_every_section_starts_with_a_sentence(full_run):
    text = (full_run / "comparison.md").read_text()
    for section in text.split("\n## ")[1:]:
        title, _, body = section.partition("\n\n")
        first = body.partition("\n\n")[0].strip()
        assert first.rstrip("*").endswith("."), title
        assert not first.startswith(("|", "!", "- ")), title


def test_open_shows_the_page_of_a_current_report_too(tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr("webbrowser.open", lambda address: opened.append(address) or True)
    run = fabricate(tmp_path)
    write(run)
    assert opened == []
    before = (run / "report.html").stat().st_mtime_ns
    write(run, dataclasses.replace(FAST, open=True))
    assert opened == [(run / "report.html").resolve().as_uri()]
    assert (run / "report.html").stat().st_mtime_ns == before


def test_equal_inputs_give_equal_bytes(tmp_path):
    names = ("comparison.csv", "comparison.md", "report.html")
    for name in "ab":
        write(add_context(fabricate(tmp_path / name)))
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name


# -- when it works again ----------------------------------------------------------------------------------------


def test_a_current_report_is_left_alone_unless_a_file_changes(tmp_path, capsys):
    run = fabricate(tmp_path)
    write(run)
    before = (run / "comparison.csv.json").stat().st_mtime_ns
    write(run)
    assert "report: current" in capsys.readouterr().err
    assert (run / "comparison.csv.json").stat().st_mtime_ns == before
    add_context(run)
    write(run)
    assert "report: current" not in capsys.readouterr().err


def test_a_damaged_output_is_made_again(tmp_path):
    run = fabricate(tmp_path)
    write(run)
    good = (run / "report.html").read_bytes()
    (run / "report.html").write_text("half")
    write(run)
    assert (run / "report.html").read_bytes() == good


def test_gallery_0_shows_no_pixels_and_removes_older_figures(tmp_path):
    run = add_context(fabricate(tmp_path))
    write(run)
    assert (run / "figures/errors.png").is_file()
    text = write(run, ReportOptions(draws=200, map="none", gallery=0))
    assert not (run / "figures/errors.png").exists()
    assert "Not drawn (--gallery 0)" in text
    assert parse(run).tags.count("img") == 6  # scores, confusion, classes' F1, reliability, referral, history


# -- what it is careful about -----------------------------------------------------------------------------------


def details_of(run: Path) -> dict:
    return records.read_record(run / "comparison.csv")["details"]


def test_every_table_of_scores_states_the_bias_of_a_random_split(tmp_path):
    run = fabricate(tmp_path, protocol="random", groups=dict.fromkeys(("train", "val", "test"), tuple("abcdef")))
    sections = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", write(run), flags=re.MULTILINE | re.DOTALL))
    scored = ("Results on the test rows", "Verdict", "Statistics of the differences", "Group by group", "Classes")
    for title in (*scored, "Confusions", "Calibration", "Referring uncertain tiles"):
        assert "Random split: biased upwards." in sections[title], title
    assert "Random-split control" not in sections
    assert details_of(run)["intervals"] == "tile"


def test_unknown_groups_are_resampled_by_tile(tmp_path):
    text = write(fabricate(tmp_path, groups={"train": ("",), "val": ("",), "test": ("",)}))
    assert "Groups (slides, patients) are not known" in text
    assert details_of(tmp_path)["intervals"] == "tile"
    assert {row["n_groups"] for row in rows_of(tmp_path)} == {""}


def test_groups_shared_by_a_given_split_are_named(tmp_path):
    groups = {"train": ("a", "b"), "val": ("c",), "test": ("b", "d", "e", "f", "g")}
    assert "Test rows share 1 group with train or validation (b)" in write(
        fabricate(tmp_path, protocol="given", groups=groups)
    )


@pytest.mark.fault("a report on no test rows, one class, one group, ties")
def test_one_test_group_gives_no_interval_and_no_conclusion(tmp_path):
    text = write(fabricate(tmp_path, groups={"train": ("a", "b"), "val": ("c",), "test": ("d",)}))
    assert "No intervals (n/a)" in text
    assert (details_of(tmp_path)["verdict"], details_of(tmp_path)["recommended"]) == ("too_few_units", None)
    assert {row["low"] for row in rows_of(tmp_path) if row["split"] == "test"} == {""}


@pytest.mark.fault("a report on no test rows, one class, one group, ties")
def test_one_test_class_and_an_absent_class_print_as_not_available(tmp_path):
    text = write(fabricate(tmp_path, test_classes=("02_STROMA",)))
    assert re.search(r"\| AUROC \| n/a \| n/a \| n/a \|", text)
    assert re.search(r"\| 01_TUMOR \| 0 \| \S+ / n/a / n/a", text)
    cells = [r["value"] for r in rows_of(tmp_path) if r["split"] == "test" and r["metric"] == "recall[01_TUMOR]"]
    assert cells == ["", "", ""]


@pytest.mark.fault("a report on no test rows, one class, one group, ties")
def test_heads_without_an_error(tmp_path):
    text = write(add_context(fabricate(tmp_path, skill=dict.fromkeys(("softmax", "svm"), 99.0))))
    assert "No head misclassifies any test tile." in text
    assert "No head confuses any classes" in text
    assert (details_of(tmp_path)["verdict"], details_of(tmp_path)["recommended"]) == ("best", "softmax")


def test_one_head_alone(tmp_path):
    write(fabricate(tmp_path, skill={"softmax": 2.0}))
    assert (details_of(tmp_path)["verdict"], details_of(tmp_path)["recommended"]) == ("one_candidate", "softmax")


def test_without_other_files_each_missing_part_is_one_sentence(tmp_path):
    text = write(fabricate(tmp_path, credit=None))
    for name in ("heads/heads.json", "history.csv", "model.json", "audit.json", "manifest.csv", "embeddings.h5"):
        assert f"{name} was left out (not there)." in text


def describe(run: Path, **more: object) -> None:
    """Add to model.json what a training writes."""
    path = run / "model.json"
    atomic.write_text(path, atomic.to_json(json.loads(path.read_text()) | more))


def test_start_weights_are_at_the_top(tmp_path):
    run = add_context(fabricate(tmp_path))
    text = write(run)
    assert "from scratch" not in text
    describe(run, init="ImageNet (torchvision's X)")
    opening = write(run, restart=True).partition("## Results")[0]
    assert "> **Not from scratch: the training started from the weights ImageNet (torchvision's X).**" in opening


@pytest.mark.parametrize("preprocess", [3, "text"])
def test_a_preprocess_that_is_none_leaves_the_model_out(tmp_path, preprocess):
    run = add_context(fabricate(tmp_path))
    describe(run, preprocess=preprocess)
    assert "model.json was left out (its content breaks the schema" in write(run)


@pytest.mark.parametrize("name", ["heads/heads.json", "history.csv", "model.json", "audit.json", "manifest.csv"])
@pytest.mark.parametrize("content", [b"", b"[1, 2]", b"\xff\xfe", b'{"heads": 3, "findings": {"a": 1}}', b"[" * 9999])
def test_a_broken_file_of_the_run_is_left_out_and_named(tmp_path, name, content):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    files = run_files.optional_files(tmp_path, pixels=True, embeddings=False)
    missing = run_files.read_run_files(tmp_path, files).missing
    fine = name == "model.json" and content.startswith(b"{")
    assert fine or missing[name] != "not there"


def test_a_file_of_the_run_that_its_stage_did_not_write_is_left_out(tmp_path):
    run = add_context(fabricate(tmp_path))
    record_predictions(run, {"protocol": "grouped", "dataset": "made up"})
    path = run / "heads/heads.json"
    path.write_text(path.read_text().replace("3.21", "0.01"))
    assert "heads/heads.json was left out (heads/heads.json: not the file that was written: make it again)" in write(
        run
    )


def test_a_broken_embeddings_file_is_left_out(tmp_path):
    run = fabricate(tmp_path)
    (run / "embeddings.h5").write_bytes(b"not HDF5")
    assert ": embeddings.h5 was left out (embeddings.h5: not a readable HDF5 file" in write(run)


def test_tiles_that_are_gone_or_changed_are_not_shown(tmp_path):
    run = add_context(fabricate(tmp_path))
    write(run)
    worst = re.findall(r"^\| (\S+tile_\d+) ", write(run), flags=re.MULTILINE)
    assert len(worst) == FAST.gallery
    Image.new("RGB", (24, 24), "black").save(run / "tiles" / f"{worst[0]}.png")
    (run / "tiles" / f"{worst[1]}.png").write_bytes(b"\x89PNG")
    assert "2 tiles can no longer be read or changed since prepare" in write(run, restart=True)
    for tile_id in worst:
        (run / "tiles" / f"{tile_id}.png").unlink(missing_ok=True)
    assert "None of these tiles can be read any more" in write(run, restart=True)


HOSTILE = ("<script>alert(1)</script>", "$\\frac{|a|}$ [x](http://e)", "_p" + "n" * 200)


def test_hostile_names_stay_text(tmp_path):
    run = fabricate(tmp_path, classes=HOSTILE)
    write(run)
    page = parse(run)
    assert page.tags.count("script") == 2
    assert HOSTILE[0] in page.text
    text = (run / "comparison.md").read_text()
    assert not re.search(r"(?<!\\)<script|(?<!\\)\[x(?<!\\)\]", text)
    table = text[text.index("## Classes") : text.index("## Confusions")]
    rows = [line for line in table.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {6}


# -- what it refuses --------------------------------------------------------------------------------------------


def edited(run: Path, change) -> None:
    """Rewrite the rows of predictions.csv and its record, as a faulty stage would."""
    path = run / "predictions.csv"
    details = records.read_record(path)["details"]
    with path.open(encoding="utf-8", newline="") as handle:
        header, *rows = csv.reader(handle)
    with path.open("w", encoding="utf-8", newline="") as handle:
        csv.writer(handle, lineterminator="\n").writerows([header, *(row for row in rows if change(row))])
    record_predictions(run, details)


@pytest.mark.fault("a report on no test rows, one class, one group, ties")
def test_no_test_rows(tmp_path):
    edited(fabricate(tmp_path), lambda row: row[2] != "test")
    with pytest.raises(BadInput, match="no test rows"):
        write(tmp_path)


def test_heads_that_disagree_about_a_tile(tmp_path):
    edited(fabricate(tmp_path), lambda row: row.__setitem__(1, "other" if row[4] == "svm" else row[1]) or True)
    with pytest.raises(BadInput, match="differ between the heads"):
        write(tmp_path)


def test_edited_predictions(tmp_path):
    path = fabricate(tmp_path) / "predictions.csv"
    path.write_bytes(path.read_bytes().replace(b"softmax", b"softmin"))
    with pytest.raises(BadArtifact, match="not those that were written"):
        write(tmp_path)


def test_stale_predictions_unless_forced(tmp_path):
    run = fabricate(tmp_path)
    (run / "embeddings.h5").write_bytes(b"old")
    details = records.read_record(run / "predictions.csv")["details"]
    record_predictions(run, details, inputs=(run / "embeddings.h5",))
    (run / "embeddings.h5").write_bytes(b"new")
    with pytest.raises(StaleInput, match="fit_heads"):
        write(run)
    write(run, force=True)


def test_no_run_is_one_line_and_exit_code_1(tmp_path, capsys):
    assert report.main(["--run", str(tmp_path / "nowhere")]) == 1
    assert report.main(["--run", str(tmp_path)]) == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 2
    assert "predictions.csv: not there" in lines[1]


def test_the_command_ends_with_where_and_what(tmp_path, capsys):
    run = fabricate(tmp_path)
    assert report.main(["--run", str(run), "--draws", "200", "--map", "none", "--gallery", "0"]) == 0
    *_, where, what = capsys.readouterr().err.strip().splitlines()
    assert str(run / "comparison.md") in where
    assert str(run / "report.html") in where
    assert what.removeprefix("report: ") in re.sub(r"\\(.)", r"\1", (run / "comparison.md").read_text())


@pytest.mark.parametrize("wrong", [{"draws": 10}, {"level": 1.0}, {"gallery": -1}])
def test_options_out_of_range(wrong):
    with pytest.raises(UsageError):
        ReportOptions(**wrong)


def test_importing_the_command_is_light():
    code = "import sys, pipeline.report; print([m for m in ('pandas', 'matplotlib', 'torch') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.replace("'", '"')) == []
