"""Arms of an ablation share tiles and seeds, stop and go on, and end in one table whose numbers are theirs."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline import __main__ as whole
from pipeline import ablate, extract, prepare, train
from pipeline.cli.ablation_plan import Plan, read_plan
from pipeline.cli.options import Common
from pipeline.comparison.ablation import compare, read_arm, to_page
from pipeline.comparison.read import read_predictions
from pipeline.errors import DiskFull, Interrupted, Locked, PipelineError, UsageError
from pipeline.storage import atomic, freshness, records
from pipeline.storage.embeddings.reader import read_embeddings
from pipeline.storage.lock import locked
from pipeline.storage.predictions.corrupted import read_robustness

PLAN = """
run = "{run}"
tiles = 24
threads = 1
workers = 0
device = "cpu"
[prepare]
data = "{data}"
group_regex = '(S[0-9])_'
protocol = "random"
seeds = 2
[train]
arch = "resnet10"
tile_px = 32
epochs = 1
batch_size = 8
precision = "fp32"
[extract]
engine = "torch"
embed_precision = "fp32"
[fit_heads]
heads = ["svm"]
baselines = false
[robustness]
corruptions = ["colour_shift", "rotation"]
[report]
draws = 100
map = "pca"
[arms.tutorial]
train.recipe = "tutorial"
[arms.strong]
train.recipe = "strong"
[arms.strong-8-views]
train.recipe = "strong"
extract.views = 8
"""
ARMS = ("tutorial", "strong", "strong-8-views")


def written(base: Path, text: str = PLAN) -> Path:
    """Write the plan of an ablation in `base/out` on the tiles in `base/tiles`."""
    plan = base / "plan.toml"
    plan.write_text(text.format(run=base / "out", data=base / "tiles"))
    return plan


def plan_at(file: Path) -> Plan:
    """Read a plan as the command does."""
    return read_plan(file, whole.AllOptions, named=prepare.NAMES)


def standing_models(base: Path) -> dict[str, tuple[str, int]]:
    """Return hash and time of all networks of all arms and of their records."""
    found = sorted((base / "out" / "arms").glob("*/parts/*/model.safetensors*"))
    return {str(path): (atomic.sha256_file(path), path.stat().st_mtime_ns) for path in found}


@pytest.fixture(scope="module")
def trained_by_arms(prepared_base: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    """A finished ablation, and its networks as they stood before the last command.

    The plain command was interrupted in the first arm, two commands ran arms, and the plain one came last.
    """
    base = tmp_path_factory.mktemp("ablation")
    shutil.copytree(prepared_base / "tiles", base / "tiles")
    plan = written(base)
    embed, asked = extract.run, []

    def interrupted(common: object, options: object) -> int:
        asked.append(common)
        if len(asked) == 2:  # the second part of the first arm
            raise Interrupted("SIGTERM: kept", signum=15)
        return embed(common, options)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(extract, "run", interrupted)
        assert ablate.main([str(plan)]) == 143
    assert ablate.main([str(plan), "--threads", "1", "--arms", "strong-8-views", "strong"]) == 0
    start, trained = train.start_training, []

    def counted(*words: object) -> object:
        trained.append(words)
        return start(*words)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "start_training", counted)
        assert ablate.main([str(plan), "--arms", "tutorial"]) == 0
        assert not (base / "out" / "ablation.csv").exists()
        before = standing_models(base)
        assert ablate.main([str(plan)]) == 0
    assert not trained, "all networks were there: two arms' own, and the third arm's are the second's"
    return base, before


@pytest.fixture(scope="module")
def finished(trained_by_arms: tuple[Path, dict]) -> Path:
    """A folder with `tiles/`, `plan.toml` and the finished ablation `out/`."""
    return trained_by_arms[0]


@pytest.fixture
def own(finished: Path, tmp_path: Path) -> Path:
    """This test's own copy of it, in which the third arm has not been run."""
    shutil.copytree(finished, tmp_path / "own", ignore=lambda _, names: [n for n in names if n == ARMS[2]])
    return written(tmp_path / "own").parent


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Common]:
    """The common options of the arms that a command would run, in their order; nothing is run and no table written."""
    seen: list[Common] = []

    def seeing(common: Common, options: dict) -> int:
        seen.append(common)
        return 0

    monkeypatch.setattr(whole, "run", seeing)
    return seen


def told(capsys: pytest.CaptureFixture[str]) -> str:
    """Return the one line that says what went wrong."""
    (line,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("error:"))
    return line


def arm(base: Path, name: str) -> Path:
    """Return the run folder of an arm."""
    return base / "out" / "arms" / name


def test_arms_have_the_same_tiles_seeds_and_splits(finished: Path) -> None:
    manifests = {(arm(finished, name) / "manifest.csv").read_bytes() for name in ARMS}
    assert len(manifests) == 1
    tables = [read_predictions(arm(finished, name) / "predictions.csv").tiles for name in ARMS]
    assert all(table.equals(tables[0]) for table in tables)
    assert set(tables[0]["seed"]) == {0, 1}


def test_a_part_of_the_tiles_is_drawn_class_by_class(finished: Path) -> None:
    drawn = pd.read_csv(finished / "out" / "tiles-24.csv", keep_default_na=False)
    assert drawn["label"].value_counts().to_dict() == {"ADI": 12, "TUM": 12}
    assert drawn["group"].isin([f"S{i}" for i in range(4)]).all()
    assert all((finished / "out" / path).is_file() for path in drawn["path"])
    manifest = pd.read_csv(arm(finished, "strong") / "manifest.csv", keep_default_na=False)
    assert len(manifest) == 24
    assert (manifest["group"] != "").all()


def test_an_arm_that_embeds_otherwise_takes_the_networks_there_are(finished: Path) -> None:
    """P8: the copies have their records, and other embeddings come of them."""
    one, other = (sorted(arm(finished, name).glob("parts/*/model.safetensors")) for name in ARMS[1:])
    assert len(one) == len(other) == 2
    for ours, theirs in zip(one, other, strict=True):
        assert ours.read_bytes() == theirs.read_bytes()
        record = records.check_artifact(theirs, schema="model/1.0")
        assert not freshness.damaged_outputs(theirs, record)
        embeddings = [read_embeddings(path.with_name("embeddings.h5")) for path in (ours, theirs)]
        assert [found.attrs["views"] for found in embeddings] == [1, 8]
        assert not np.array_equal(embeddings[0].features, embeddings[1].features)


def test_the_table_is_what_the_runs_say(finished: Path) -> None:
    """P8."""
    table = pd.read_csv(finished / "out" / "ablation.csv").set_index(["arm", "head", "metric"])
    for name in ARMS:
        predictions = read_predictions(arm(finished, name) / "predictions.csv")
        corrupted = read_robustness(arm(finished, name) / "robustness.csv")
        seeds = predictions.tiles["seed"].to_numpy()
        for head in ("softmax", "svm"):
            right = predictions.predicted[head] == predictions.y
            row = table.loc[(name, head, "accuracy")]
            assert row["value"] == pytest.approx(right.mean())
            by_seed = [right[seeds == seed].mean() for seed in (0, 1)]
            assert (row["lowest_seed"], row["highest_seed"]) == pytest.approx((min(by_seed), max(by_seed)))
            assert row["low"] <= row["value"] <= row["high"]
            assert row["n"] == len(right)
            assert table.loc[(name, head, "errors"), "value"] == (~right).sum()
            first = read_predictions(arm(finished, "tutorial") / "predictions.csv")
            if name == "tutorial":
                assert np.isnan(row["difference"])
            else:
                before = (first.predicted[head] == first.y).mean()
                assert row["difference"] == pytest.approx(right.mean() - before)
                assert row["difference_low"] <= row["difference"] <= row["difference_high"]
            rows = corrupted[(corrupted["head"] == head) & (corrupted["corruption"] == "colour_shift")]
            both = [
                2
                * ((rows["label"] == c) & (rows["predicted"] == c)).sum()
                / ((rows["label"] == c).sum() + (rows["predicted"] == c).sum())
                for c in ("ADI", "TUM")
            ]
            shifted = table.loc[(name, head, "macro_f1[colour_shift]")]
            assert shifted["value"] == pytest.approx(np.mean(both))
            clean = table.loc[(name, head, "macro_f1"), "value"]
            assert shifted["difference"] == pytest.approx(shifted["value"] - clean)
        seconds = sum(pd.read_csv(path)["seconds"].sum() for path in arm(finished, name).glob("parts/*/history.csv"))
        assert table.loc[(name, np.nan, "train_seconds"), "value"].item() == pytest.approx(seconds)


def test_eight_views_do_not_fall_by_a_quarter_turn(finished: Path) -> None:
    table = pd.read_csv(finished / "out" / "ablation.csv").set_index(["arm", "head", "metric"])
    assert table.loc[("strong-8-views", "softmax", "macro_f1[rotation]"), "difference"] == 0


def test_the_page_names_every_arm_and_warns_of_a_random_split(finished: Path) -> None:
    page = (finished / "out" / "ablation.md").read_text()
    assert all(f"| {name} | SVM |" in page for name in ARMS)
    assert "Data set tiles-24 (24 tiles, drawn class by class)" in page
    assert "all figures flatter" in page
    assert "2 seeds" in page
    record = records.check_artifact(finished / "out" / "ablation.csv", schema="ablation/1.0")
    assert record["outputs"] == {"ablation.md": atomic.sha256_file(finished / "out" / "ablation.md")}
    assert len(record["inputs"]) == 3 * 2 + 3 * 2 * 4


def test_an_arm_that_is_not_from_scratch_is_marked(finished: Path) -> None:
    arms = [read_arm(arm(finished, name), name) for name in ARMS]
    assert [one.start for one in arms] == [None] * 3
    arms[1] = dataclasses.replace(arms[1], start="ImageNet (torchvision's X)")
    page = to_page(compare(arms, seed=0), arms=arms, setting="made up")
    assert page.count("not trained from scratch") == 1
    assert "> **strong is not trained from scratch: it started from the weights ImageNet (torchvision's X).**" in page


def test_the_setting_names_a_network_only_if_all_arms_have_it(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ", network resnet10; what each arm does" in (finished / "out" / "ablation.md").read_text()
    plan = plan_at(finished / "plan.toml")
    other = dataclasses.replace(plan.arms[1].options["train"], arch="resnet18")
    arms = [plan.arms[0], dataclasses.replace(plan.arms[1], options=plan.arms[1].options | {"train": other})]
    written_pages: dict[str, str] = {}
    monkeypatch.setattr(atomic, "write_text", lambda path, text: written_pages.update({path.name: text}))
    monkeypatch.setattr(records, "write_record", lambda *words, **more: None)
    ablate.write_table(dataclasses.replace(plan, arms=arms))
    assert "protocol random; what each arm does" in written_pages["ablation.md"]


def test_a_second_run_finds_everything_current(finished: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """On any device and with any number of threads: these belong to the machine."""
    before = (finished / "out" / "ablation.csv").read_bytes()
    assert ablate.main([str(finished / "plan.toml"), "--threads", "2", "--device", "auto"]) == 0
    said = capfd.readouterr().err
    assert "ablate: current" in said
    assert said.count("train: current") == said.count("extract: current") == 6
    assert "epoch" not in said
    assert (finished / "out" / "ablation.csv").read_bytes() == before


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('run = "x"', "no arms"),
        ('[arms.a]\ntrain.recipe = "strong"', 'run = "FOLDER" is needed'),
        ('run = "x"\n[arms."../a"]\n', "an arm is called '../a'"),
        ('run = "x"\n[arms.a]\nprepare.data = "y"', "other tables than train, extract, fit_heads"),
        ('run = "x"\n[arms.a]\ntrain.recipes = "strong"', "unknown option 'recipes'; did you mean 'recipe'"),
        ('run = "x"\ntiles = "many"\n[arms.a]\n', "tiles = many: a number"),
        ('run = "x"\ntiles = 100\n[arms.a]\n', "tiles: not of demo"),
        ('run = "x"\nrestart = true\n[arms.a]\n', "restart: an arm is begun anew by removing its folder"),
        ('run = "x"\nlearning = 1\n[arms.a]\n', "unknown option 'learning'"),
        ('run = "x"\n[arms.a]\n[arms.A]\n', "two arms differ in upper and lower case alone"),
    ],
)
def test_a_plan_that_cannot_be_run_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    plan = tmp_path / "plan.toml"
    plan.write_text(text)
    with pytest.raises(UsageError) as caught:
        plan_at(plan)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "x").exists()


def test_an_arm_that_fails_does_not_stop_the_others(
    finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nor is there a table that would leave it out without a word."""
    asked: list[str] = []

    def diverging(common: Common, options: dict) -> int:
        asked.append(common.run.name)
        if len(asked) == 1:
            raise PipelineError("the loss became infinite")
        return 0

    monkeypatch.setattr(whole, "run", diverging)
    monkeypatch.setattr(ablate, "write_table", lambda plan: pytest.fail("a table"))
    assert ablate.main([str(finished / "plan.toml")]) == 1
    assert asked == list(ARMS)
    (line,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("error:"))
    assert "1 of 3 arms failed (tutorial), the others are kept" in line
    assert line.endswith("tutorial: the loss became infinite")


@pytest.mark.parametrize("error", [Interrupted("SIGTERM: kept", signum=15), DiskFull("no space left")])
def test_what_every_arm_would_meet_stops_all(
    finished: Path, monkeypatch: pytest.MonkeyPatch, error: PipelineError
) -> None:
    asked: list[str] = []

    def stopping(common: Common, options: dict) -> int:
        asked.append(common.run.name)
        raise error

    monkeypatch.setattr(whole, "run", stopping)
    assert ablate.main([str(finished / "plan.toml")]) == error.exit_code
    assert asked == [ARMS[0]]


def test_after_its_arms_were_run_apart_a_plan_trains_nothing(trained_by_arms: tuple[Path, dict]) -> None:
    """P2: and there is the table."""
    base, before = trained_by_arms
    assert len(before) == 3 * 2 * 2
    assert standing_models(base) == before
    assert set(pd.read_csv(base / "out" / "ablation.csv")["arm"]) == set(ARMS)


def test_arms_run_in_the_order_of_the_plan_by_the_options_of_the_command(
    finished: Path, asked: list[Common], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ablate, "write_table", lambda plan: pytest.fail("a table"))
    plan = str(finished / "plan.toml")
    assert ablate.main([plan, "--arms", "strong", "tutorial", "--threads", "3", "--device", "cuda:1"]) == 0
    assert [(common.run.name, common.threads, common.device) for common in asked] == [
        ("tutorial", 3, "cuda:1"),
        ("strong", 3, "cuda:1"),
    ]
    assert "the same command without --arms writes the table" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--arms"], "--arms: name at least one; the plan's arms: tutorial, strong, strong-8-views"),
        (["--arms", "weak"], "--arms weak: no such arm; the plan's arms: tutorial, strong, strong-8-views"),
        (["--arms", "strong", "tutorial", "strong"], "--arms: strong is named twice; the plan's arms: tutorial, "),
        (["--threads", "0"], "--threads 0: at least 1"),
        (["--device", "abacus"], "--device abacus: "),
    ],
)
def test_words_that_no_plan_can_be_run_by(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert ablate.main([str(written(tmp_path)), *words]) == 2
    assert message in told(capsys)
    assert not (tmp_path / "out").exists()


@pytest.mark.fault(
    "shards at the same time on one run, one of them killed; arms of an ablation at the same time on one plan"
)
def test_arms_share_the_plan_which_the_plain_command_holds_alone(
    finished: Path, asked: list[Common], capsys: pytest.CaptureFixture[str]
) -> None:
    plan, out = str(finished / "plan.toml"), finished / "out"
    with locked(out, shared=True):
        assert ablate.main([plan]) == 1
        assert "in use by another process, or several that share it (shards, arms of an ablation)" in told(capsys)
        assert not asked
        left = out / ".tiles-24.csv.abcdefgh.tmp"
        left.touch()
        assert ablate.main([plan, "--arms", "strong"]) == 0
        assert left.is_file(), "another command may be writing it"
        left.unlink()
        assert [common.run.name for common in asked] == ["strong"]
    with locked(out):
        assert ablate.main([plan, "--arms", "strong"]) == 1
        assert f"{out} is in use by" in told(capsys)


@pytest.mark.fault(
    "shards at the same time on one run, one of them killed; arms of an ablation at the same time on one plan"
)
@pytest.mark.parametrize("words", [[], ["--arms", *ARMS]])
def test_an_arm_that_another_process_runs_has_not_failed(
    finished: Path,
    asked: list[Common],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
) -> None:
    monkeypatch.setattr(ablate, "write_table", lambda plan: pytest.fail("a table"))
    with locked(arm(finished, "strong")):
        assert ablate.main([str(finished / "plan.toml"), *words]) == 1
    assert [common.run.name for common in asked] == ["tutorial", "strong-8-views"]
    said = capsys.readouterr().err
    assert "ablate: arm strong is being run by another process" in said
    (line,) = (line for line in said.splitlines() if line.startswith("error:"))
    assert line.endswith(
        "1 of 3 arms are being run by other processes (strong): give the same command again once they are done"
    )


def test_failed_arms_and_those_held_elsewhere_are_told_apart(
    finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def diverging(common: Common, options: dict) -> int:
        raise PipelineError("the loss became infinite")

    monkeypatch.setattr(whole, "run", diverging)
    with locked(arm(finished, "strong")):
        assert ablate.main([str(finished / "plan.toml"), "--arms", "strong", "tutorial"]) == 1
    line = told(capsys)
    assert "1 of 2 arms failed (tutorial)" in line
    assert line.endswith("the loss became infinite; 1 of 2 arms are being run by other processes (strong)")


def test_the_list_of_tiles_is_not_replaced_while_others_may_read_it(
    own: Path, asked: list[Common], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    drawn = own / "out" / "tiles-24.csv"
    text = drawn.read_text()
    drawn.write_text(text + "one,more,,\n")
    words = [str(own / "plan.toml"), "--arms", "tutorial"]
    assert ablate.main(words) == 1
    line = told(capsys)
    assert "tiles-24.csv lists other tiles than the plan draws now" in line
    assert "without --arms, which writes it anew" in line
    assert drawn.read_text() == text + "one,more,,\n"
    assert not asked
    monkeypatch.setattr(ablate, "write_table", lambda plan: None)
    assert ablate.main(words[:1]) == 0
    assert drawn.read_text() == text
    assert ablate.main(words) == 0


def test_commands_at_once_write_the_same_list_of_tiles(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan, drawn = plan_at(own / "plan.toml"), own / "out" / "tiles-24.csv"
    text, write = drawn.read_text(), atomic.write_text
    drawn.unlink()

    def writing(path: Path, text: str) -> None:
        monkeypatch.setattr(atomic, "write_text", write)
        with atomic.atomic(path) as temporary:
            temporary.write_text(text)
            ablate.with_drawn_tiles(plan, 24, shared=True)  # the other command, from beginning to end
            assert drawn.read_text() == text

    monkeypatch.setattr(atomic, "write_text", writing)
    taken = ablate.with_drawn_tiles(plan, 24, shared=True)
    assert drawn.read_text() == text
    assert {one.options["prepare"].data for one in taken.arms} == {str(drawn)}
    assert not list(drawn.parent.glob(".*.tmp"))


def test_networks_are_those_of_an_arm_that_this_command_does_not_run(own: Path, asked: list[Common]) -> None:
    """P1: each has its record, and nothing is left of a training that was begun before."""
    begun = arm(own, ARMS[2]) / "parts" / "random-seed0-fold0" / "checkpoint.pt"
    begun.parent.mkdir(parents=True)
    begun.touch()
    assert ablate.main([str(own / "plan.toml"), "--arms", ARMS[2]]) == 0
    copies = sorted(arm(own, ARMS[2]).glob("parts/*/model.safetensors"))
    assert len(copies) == 2
    for path in copies:
        theirs = arm(own, "strong") / path.relative_to(arm(own, ARMS[2]))
        assert path.read_bytes() == theirs.read_bytes()
        assert not freshness.damaged_outputs(path, records.check_artifact(path, schema="model/1.0"))
        assert records.record_path(path).read_bytes() == records.record_path(theirs).read_bytes()
    assert not begun.exists()


def test_an_arm_trains_itself_where_the_networks_of_another_are_not_finished_or_not_its_own(
    own: Path, asked: list[Common]
) -> None:
    def run_third(plan: Path) -> list[Path]:
        assert ablate.main([str(plan), "--arms", ARMS[2]]) == 0
        return sorted(arm(own, ARMS[2]).glob("parts/*/model.safetensors"))

    assert not run_third(written(own, PLAN.replace("epochs = 1", "epochs = 2"))), "of an earlier version of the plan"
    record = sorted(arm(own, "strong").glob("parts/*/model.safetensors.json"))[1]
    kept = record.read_bytes()
    record.unlink()
    assert not run_third(written(own)), "the second is in the making"
    record.write_bytes(kept)
    manifest = record.with_name("manifest.csv")
    manifest.rename(own / "manifest.csv")
    assert not run_third(written(own))
    (own / "manifest.csv").rename(manifest)
    assert len(run_third(written(own))) == 2
    assert len(asked) == 4


def test_another_lock_than_an_arms_is_a_failure(
    finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Such as that of a data set that another command is downloading: the arm itself is in nobody's hands."""

    def reading(common: Common, options: dict) -> int:
        raise Locked("data/kather2016 is in use by another process: wait for it")

    monkeypatch.setattr(whole, "run", reading)
    assert ablate.main([str(finished / "plan.toml"), "--arms", "strong"]) == 1
    line = told(capsys)
    assert "1 of 1 arms failed (strong)" in line
    assert line.endswith("strong: data/kather2016 is in use by another process: wait for it")


def test_the_table_is_written_anew_for_networks_that_came_out_the_same(own: Path, asked: list[Common]) -> None:
    """P8: predictions are the same, but times and how it ran may be others."""
    plan = str(written(own, PLAN.split(f"[arms.{ARMS[2]}]")[0]))
    seconds = []
    for more in (0, 100):
        for folder in arm(own, "strong").glob("parts/*"):
            history = pd.read_csv(folder / "history.csv")
            history["seconds"] += more
            history.to_csv(folder / "history.csv", index=False)
            model, record = folder / "model.safetensors", records.read_record(folder / "model.safetensors")
            same = [record[name] for name in ("schema", "stage", "options")]
            inputs = [folder / name for name in record["inputs"]]
            records.write_record(
                records.Artifact(model, *same, inputs, record["seed"]),
                outputs=[folder / name for name in record["outputs"]],
                details=record["details"],
                device=record["device"],
            )
        assert ablate.main([plan]) == 0
        table = pd.read_csv(own / "out" / "ablation.csv").set_index(["arm", "metric"])
        seconds.append(table.loc[("strong", "train_seconds"), "value"].item())
    assert seconds[1] == pytest.approx(seconds[0] + 2 * 100)


@pytest.mark.fault(
    "shards at the same time on one run, one of them killed; arms of an ablation at the same time on one plan"
)
@pytest.mark.parametrize("name", ["model.safetensors", "model.safetensors.json"])
def test_networks_that_change_while_they_are_copied_are_refused(
    own: Path,
    asked: list[Common],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
) -> None:
    """P1."""
    copy = shutil.copyfile

    def changing(source: Path, target: Path) -> None:
        with (source.parent / name).open("ab") as file:
            file.write(b" ")
        copy(source, target)

    monkeypatch.setattr(shutil, "copyfile", changing)
    assert ablate.main([str(own / "plan.toml"), "--arms", ARMS[2]]) == 1
    assert "model.safetensors: changed while it was copied: give the same command again" in told(capsys)
    assert not asked
    assert not list(arm(own, ARMS[2]).glob("parts/*/model.safetensors.json"))


def test_networks_that_vanish_while_they_are_copied_are_refused(
    own: Path, asked: list[Common], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = shutil.copyfile

    def removing(source: Path, target: Path) -> None:
        source.unlink()
        copy(source, target)

    monkeypatch.setattr(shutil, "copyfile", removing)
    assert ablate.main([str(own / "plan.toml"), "--arms", ARMS[2]]) == 1
    assert "changed while it was copied: give the same command again" in told(capsys)
    assert not list(arm(own, ARMS[2]).glob("parts/*/model.safetensors.json"))


def test_arms_that_ran_unlike_are_marked(finished: Path) -> None:
    arms = [read_arm(arm(finished, name), name) for name in ARMS]
    alike = to_page(compare(arms, seed=0), arms=arms, setting="made up")
    assert "compares only between arms that ran alike (device, precision, threads)" in alike
    assert "not done alike" not in alike
    assert arms[0].ran == {
        "training": {"device": "cpu", "precision": "fp32", "threads": "1", "processes": "1"},
        "embedding": {"device": "cpu", "precision": "fp32", "engine": "torch"},
    }
    arms[1] = dataclasses.replace(arms[1], ran=arms[1].ran | {"training": arms[1].ran["training"] | {"threads": "2"}})
    arms[2] = dataclasses.replace(arms[2], ran=arms[2].ran | {"embedding": {}})  # of an earlier version
    page = to_page(compare(arms, seed=0), arms=arms, setting="made up")
    assert "> **The training of the arms was not done alike, so that their times do not compare; threads: 1" in page
    assert "threads: 1 (tutorial and strong-8-views), 2 (strong).**" in page
    assert (
        "> **The embedding of the arms was not done alike, so that rounding is among their differences; device" in page
    )
    assert "engine: torch (tutorial and strong), not said (strong-8-views).**" in page


def test_more_tiles_than_there_are(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(finished / "tiles", tmp_path / "tiles")
    assert ablate.main([str(written(tmp_path, PLAN.replace("tiles = 24", "tiles = 33")))]) == 1
    assert "tiles = 33: " in capsys.readouterr().err


def test_the_committed_plan_can_be_read() -> None:
    plan = plan_at(Path(__file__).parents[1] / "reports" / "ablation" / "plan.toml")
    assert plan.arms[0].name == "strong", "what the others are held against"
    assert plan.n_tiles == 1500
    shared = ("arch", "tile_px", "epochs", "precision")
    ways = {tuple(getattr(arm.options["train"], name) for name in shared) for arm in plan.arms}
    assert ways == {("resnet18", 96, 10, "bf16")}
    assert {(arm.options["extract"].engine, arm.options["extract"].embed_precision) for arm in plan.arms} == {
        ("torch", "bf16")
    }
    stained = {arm.name: arm.options["train"].stain for arm in plan.arms if arm.options["train"].stain != "none"}
    assert stained == {"stain-macenko": "macenko", "stain-reinhard": "reinhard"}
    no_own = [arm for arm in plan.arms if arm.name.endswith("8-views")]
    assert all(ablate.same_networks(arm, plan.arms[: plan.arms.index(arm)]) for arm in no_own)
