"""A frozen encoder takes the place of the trained network in every stage."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torchvision.models import shufflenet_v2_x0_5

from pipeline import __main__ as everything
from pipeline import export, extract, fit_heads, merge, predict, tile, train, verify
from pipeline.network.encoders import libraries
from pipeline.network.model_file import load_model
from pipeline.publication.checklist import state
from pipeline.publication.run_facts import read_facts
from pipeline.storage import atomic
from pipeline.storage.embeddings.reader import read_embeddings
from pipeline.storage.records import read_record, save_record

NAME = "torchvision:shufflenet_v2_x0_5"
PLAIN = ("--device", "cpu", "--threads", "1", "--workers", "0", "--quiet")


def embed(run: Path, weights: Path, *words: str) -> int:
    """Embed the tiles of a run by a frozen encoder in fp32."""
    given = ["--run", str(run), "--encoder", NAME, "--weights", str(weights), "--embed-precision", "fp32"]
    return extract.main([*given, *PLAIN, *words])


@pytest.fixture(scope="module")
def frozen_base(prepared_base: Path, encoder_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small prepared run after extract and fit_heads with a frozen encoder; copied, never changed."""
    base = tmp_path_factory.mktemp("frozen") / "base"
    shutil.copytree(prepared_base, base)
    assert embed(base / "run", encoder_weights) == 0
    assert fit_heads.main(["--run", str(base / "run"), "--threads", "1", "--rounds", "4", "--quiet"]) == 0
    return base


@pytest.fixture
def frozen_run(frozen_base: Path, tmp_path: Path) -> Path:
    shutil.copytree(frozen_base, tmp_path / "frozen")
    return tmp_path / "frozen" / "run"


def one_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.startswith("error:")]
    assert len(lines) == 1, text
    assert "Traceback" not in text
    return lines[0]


def test_features_are_those_of_the_library(frozen_base: Path, encoder_weights: Path) -> None:
    network = shufflenet_v2_x0_5()
    network.load_state_dict(load_file(encoder_weights))
    network.fc = torch.nn.Identity()
    content = read_embeddings(frozen_base / "run" / "embeddings.h5")
    assert content.features.shape == (32, 1024)
    assert content.logits.shape == (32, 0)
    for row in (0, 20):
        image = Image.open(frozen_base / "tiles" / content.path[row]).resize((36, 36), Image.Resampling.BICUBIC)
        x = (np.asarray(image, np.float32)[2:34, 2:34] / 255 - [0.5, 0.4, 0.6]) / [0.2, 0.3, 0.25]
        with torch.inference_mode():
            expected = network.eval()(torch.from_numpy(x.astype(np.float32)).permute(2, 0, 1)[None])[0]
        assert np.allclose(content.features[row], expected.numpy(), atol=1e-4)


def test_the_run_names_weights_preprocessing_and_licence(frozen_base: Path, encoder_weights: Path) -> None:
    run = frozen_base / "run"
    facts = json.loads((run / "model.json").read_text())["encoder"]
    assert facts["weights_sha256"] == atomic.sha256_file(encoder_weights)
    assert (facts["dimension"], facts["licence"], facts["trained_on"]) == (1024, "CC0", None)
    preprocess = load_model(run / "model.safetensors").preprocess
    assert (preprocess.size, preprocess.crop, preprocess.interpolation) == (36, 32, "bicubic")
    with h5py.File(run / "embeddings.h5") as file:
        assert "logits" not in file
        assert file.attrs["encoder"].decode() == NAME
        assert json.loads(file.attrs["preprocess"])["crop"] == 32
    record = json.loads((run / "predictions.csv.json").read_text())
    assert record["details"]["encoder"] == facts
    assert verify.main(["--run", str(run)]) == 0


def test_logistic_regression_takes_the_place_of_softmax(frozen_base: Path) -> None:
    table = pd.read_csv(frozen_base / "run" / "predictions.csv")
    heads = list(dict.fromkeys(table["head"]))
    assert heads[:3] == ["logistic", "svm", "xgboost"]
    assert "softmax" not in heads
    assert "linear" not in heads, "the same fit"
    assert {"majority", "knn"} <= set(heads)
    summary = json.loads((frozen_base / "run" / "heads" / "heads.json").read_text())
    assert len(summary["heads"]["logistic"]["search"]) == 4
    assert summary["separability"]["val"]["accuracy"] is None


def parts_share_their_rows(run: Path) -> None:
    """Check that a tile is embedded once in a plan, that its split is that of the part, and when rows are not taken."""
    first, second = sorted((run / "parts").iterdir())
    one, other = (read_embeddings(part / "embeddings.h5") for part in (first, second))
    assert one.attrs["features_sha256"] == other.attrs["features_sha256"]
    assert not (one.split == other.split).all()
    for part, content in ((first, one), (second, other)):
        assert content.attrs["manifest_sha256"] == atomic.sha256_file(part / "manifest.csv")
        split = pd.read_csv(part / "manifest.csv")["split"].map({"train": 0, "val": 1, "test": 2})
        assert (split == content.split).all()
    details = [read_record(part / "embeddings.h5")["details"] for part in (first, second)]
    assert [each.get("rows_of") for each in details] == [None, first.name]
    source = {f"../{first.name}/embeddings.h5": atomic.sha256_file(first / "embeddings.h5")}
    inputs = [read_record(part / "embeddings.h5")["inputs"] for part in (first, second)]
    assert [source.items() <= each.items() for each in inputs] == [False, True]
    given = ["--run", str(second), "--embed-precision", "fp32", *PLAIN]
    for word, value in (("--max-bad", "0"), ("--threads", "2")):
        written = (second / "embeddings.h5").stat().st_mtime_ns
        assert extract.main([*given, word, value]) == 0
        assert (second / "embeddings.h5").stat().st_mtime_ns == written, "current, and its source is an input"
    record = read_record(first / "embeddings.h5")
    skipped = {"skipped": {"a tile": "unreadable"}}
    save_record(first / "embeddings.h5", {**record, "details": record["details"] | skipped})
    for words, is_taken in ((["--max-bad", "0"], False), (["--threads", "2"], False), ([], True)):
        (second / "embeddings.h5").unlink()
        assert extract.main([*given, "--max-bad", "1", *words]) == (3 if is_taken else 0)
        assert ("rows_of" in read_record(second / "embeddings.h5")["details"]) == is_taken
    save_record(first / "embeddings.h5", record)
    before = (second / "embeddings.h5").read_bytes()
    assert extract.main(["--run", str(second), "--dtype", "float16", "--restart", *PLAIN]) == 0
    assert "rows_of" not in read_record(second / "embeddings.h5")["details"], "another option"
    assert extract.main(["--run", str(second), "--embed-precision", "fp32", "--restart", *PLAIN]) == 0
    assert (second / "embeddings.h5").read_bytes() == before


def test_all_stages_in_one_command(tmp_path: Path, tile_folder: Callable[..., Path], encoder_weights: Path) -> None:
    tiles, run = tile_folder(n=12, px=16, groups=6), tmp_path / "run"
    words = [
        "--run",
        str(run),
        "--data",
        str(tiles),
        "--group-regex",
        "(s[0-9]+)_",
        "--protocol",
        "logo",
        "--folds",
        "2",
    ]
    words += ["--encoder", NAME, "--weights", str(encoder_weights), "--embed-precision", "fp32", "--rounds", "2"]
    assert everything.main([*words, *PLAIN]) == 0
    assert not list(run.rglob("history.csv"))
    parts_share_their_rows(run)
    table = pd.read_csv(run / "comparison.csv")
    assert {"logistic", "svm", "xgboost"} <= set(table["head"])
    assert "frozen encoder" in (run / "comparison.md").read_text()
    assert verify.main(["--run", str(run)]) == 0
    assert everything.main([*words, *PLAIN]) == 0, "current"
    facts = read_facts(run)
    texts = {
        name: statement.text for name in ("method", "model", "initialisation") if (statement := state(facts, name))
    }
    assert "frozen" in texts["method"]
    assert "end to end" not in texts["method"]
    assert "32 x 32 px" in texts["model"]
    assert texts["initialisation"].startswith("Pretrained weights")


def test_new_tiles_are_predicted_as_those_of_the_run(frozen_run: Path) -> None:
    words = ["--run", str(frozen_run), "--tiles", str(frozen_run.parent / "tiles"), "--head", "all", *PLAIN]
    assert predict.main(words) == 0
    found = pd.read_csv(frozen_run / "maps" / "tiles" / "predictions.csv")
    expected = pd.read_csv(frozen_run / "predictions.csv")
    for head in ("logistic", "svm", "xgboost"):
        a = (
            found[found["head"] == head]
            .set_index("tile_id")["predicted"]
            .rename(lambda name: name.removesuffix(".png"))
        )
        b = expected[expected["head"] == head].set_index("tile_id")["predicted"]
        assert (a.loc[b.index] == b).all()
    assert predict.main([*words[:4], "--restart", *PLAIN]) == 0
    alone = pd.read_csv(frozen_run / "maps" / "tiles" / "predictions.csv")
    assert set(alone["head"]) == {"logistic"}, "auto"


def test_a_slide_is_embedded_and_predicted(
    frozen_run: Path, slide_file: Callable[..., Path], embedded_slide: Callable[..., Path], tmp_path: Path
) -> None:
    slide = embedded_slide(frozen_run, tmp_path / "one.h5")
    words = ["--run", str(frozen_run), "--embeddings", str(slide)]
    assert predict.main([*words, "--head", "logistic", *PLAIN]) == 0
    assert export.main([*words, "--to", "csv", "--out", str(tmp_path / "a.csv")]) == 0
    path = slide_file("new.tif", side=128)
    assert tile.main([str(path), "--run", str(frozen_run), "--mpp-target", "0.5", "--quiet"]) == 0
    assert extract.main(["--run", str(frozen_run), "--slide", str(path), *PLAIN]) == 0
    content = read_embeddings(frozen_run / "slides" / "new" / "new.h5")
    assert content.logits.shape[1] == 0
    assert content.features.shape[1] == 1024
    assert (content.attrs["preprocess"]["size"], content.attrs["preprocess"]["crop"]) == (36, 32)


def test_shards_make_the_file_of_a_single_run(prepared_run: Path, frozen_base: Path, encoder_weights: Path) -> None:
    for i in (1, 2):
        assert embed(prepared_run, encoder_weights, "--shard", f"{i}/2") == 0
    shards = sorted(str(path) for path in (prepared_run / "shards").glob("*.h5"))
    out = prepared_run / "embeddings.h5"
    assert merge.main([*shards, "--manifest", str(prepared_run / "manifest.csv"), "--out", str(out), "--quiet"]) == 0
    merged, single = read_embeddings(out), read_embeddings(frozen_base / "run" / "embeddings.h5")
    assert merged.attrs["features_sha256"] == single.attrs["features_sha256"]
    assert merged.attrs["encoder"] == NAME
    assert fit_heads.main(["--run", str(prepared_run), "--threads", "1", "--rounds", "2", "--quiet"]) == 0


def test_a_state_dict_of_torch_is_converted(prepared_run: Path, encoder_weights: Path, tmp_path: Path) -> None:
    shutil.copy(encoder_weights.with_name("config.json"), tmp_path / "config.json")
    state = {f"module.{name}": value for name, value in load_file(encoder_weights).items()}
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "own.pth")
    assert embed(prepared_run, tmp_path / "own.pth") == 0
    stored, given = load_file(prepared_run / "model.safetensors"), load_file(encoder_weights)
    assert all(torch.equal(stored[name], given[name]) for name in stored)
    assert set(given) - set(stored) == {"fc.weight", "fc.bias"}


class Harmful:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return open, ("/tmp/harmed", "w")


def broken(tmp_path: Path, encoder_weights: Path, how: str) -> Path:
    """Return weights that no run can use."""
    state = load_file(encoder_weights)
    path = tmp_path / "bad.safetensors"
    config = json.loads(encoder_weights.with_name("config.json").read_text())
    if how == "pickle":
        path = path.with_suffix(".pth")
        torch.save({**state, "more": Harmful()}, path)
    elif how == "other network":
        save_file({"conv.weight": torch.zeros(1)}, path)
    elif how == "missing":
        return path
    else:
        save_file(state, path)
    if how == "other config":
        config = {"architecture": "resnet50", **config}
    if how == "no config":
        config = []
    path.with_name("config.json").write_text(json.dumps(config))
    return path


@pytest.mark.parametrize("how", ["pickle", "other network", "missing", "other config", "no config"])
def test_weights_that_cannot_be_used(
    prepared_run: Path, encoder_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], how: str
) -> None:
    (tmp_path / "bad").mkdir()
    path = broken(tmp_path / "bad", encoder_weights, how)
    assert embed(prepared_run, path) == 1
    named = path.with_name("config.json") if "config" in how else path
    assert str(named) in one_line(capsys.readouterr().err)
    assert not (prepared_run / "model.safetensors").exists()
    assert not (prepared_run / "embeddings.h5").exists()


@pytest.mark.parametrize(
    "words",
    [
        ["--encoder", "keras:vgg16"],
        ["--encoder", "torchvision:none"],
        ["--weights", "a.safetensors"],
        ["--encoder", NAME, "--model", "a.safetensors"],
        ["--encoder", NAME, "--slide", "a.svs"],
    ],
)
def test_options_that_make_no_sense(prepared_run: Path, words: list[str]) -> None:
    assert extract.main(["--run", str(prepared_run), *words, *PLAIN]) == 2


def test_without_a_network_one_line_names_the_file_to_bring(
    prepared_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
    assert extract.main(["--run", str(prepared_run), "--encoder", NAME, *PLAIN]) == 1
    line = one_line(capsys.readouterr().err)
    assert "shufflenetv2_x0.5-f707e7126e.pth" in line
    assert "--weights FILE" in line


def fail(*words: object, **more: object) -> None:
    raise OSError("no network")


def test_timm_without_a_network_names_the_file_to_bring(
    prepared_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("timm")
    monkeypatch.setattr("huggingface_hub.hf_hub_download", fail)
    for name, file in (("timm:test_vit", "model.safetensors"), ("timm:hf-hub:lab/model", "config.json")):
        assert extract.main(["--run", str(prepared_run), "--encoder", name, *PLAIN]) == 1
        line = one_line(capsys.readouterr().err)
        assert file in line
        assert "https://huggingface.co/" in line


def test_weights_of_the_hub_with_the_configuration_there(
    prepared_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timm = pytest.importorskip("timm")
    network = timm.create_model("test_vit", img_size=32, num_classes=0)
    save_file(network.state_dict(), tmp_path / "model.safetensors")
    config = {"input_size": [3, 32, 32], "crop_pct": 1.0, "mean": [0.5] * 3, "std": [0.5] * 3}
    content = {"architecture": "test_vit", "model_args": {"img_size": 32}, "pretrained_cfg": config}
    (tmp_path / "config.json").write_text(json.dumps(content))
    monkeypatch.setattr(libraries, "hub_file", lambda repository, file="model.safetensors": tmp_path / file)
    monkeypatch.setattr("pipeline.network.encoders.install.hub_file", libraries.hub_file)
    name = "timm:hf-hub:lab/model"
    assert extract.main(["--run", str(prepared_run), "--encoder", name, "--embed-precision", "fp32", *PLAIN]) == 0
    content = read_embeddings(prepared_run / "embeddings.h5")
    assert content.features.shape == (32, 64)
    assert content.attrs["encoder"] == "timm:test_vit"
    model = load_model(prepared_run / "model.safetensors")
    assert model.info["encoder"]["requested"] == name
    assert (model.info["encoder"]["weights"], model.info["encoder"]["trained_on"]) == ("lab/model", None)
    assert model.preprocess.crop is None


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bf16", "fp32"])
@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_engines_agree_with_fp32(
    prepared_run: Path, frozen_base: Path, encoder_weights: Path, engine: str, precision: str
) -> None:
    if engine == "openvino":
        pytest.importorskip("openvino")
    code = embed(prepared_run, encoder_weights, "--engine", engine, "--embed-precision", precision)
    if code and engine == "openvino" and precision == "bf16":
        pytest.skip("this CPU does not compute in bf16")
    assert code == 0
    found = read_embeddings(prepared_run / "embeddings.h5").features
    exact = read_embeddings(frozen_base / "run" / "embeddings.h5").features
    assert np.abs(found - exact).max() < (0.05 if precision == "bf16" else 1e-3) * np.abs(exact).max()
    agreement = json.loads((prepared_run / "embeddings.h5.json").read_text())["details"]["agreement"]
    assert agreement["cosine"] >= 0.999


def test_a_trained_network_is_never_replaced(
    trained_run: Path, encoder_weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = atomic.sha256_file(trained_run / "model.safetensors")
    for more in ([], ["--restart"]):
        assert embed(trained_run, encoder_weights, *more) == 2
        one_line(capsys.readouterr().err)
    assert atomic.sha256_file(trained_run / "model.safetensors") == before


def test_training_does_not_replace_an_encoder(
    frozen_run: Path, words: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert train.main(words("train", frozen_run)) == 1
    one_line(capsys.readouterr().err)


def test_another_configuration_of_the_weights_is_stale(
    frozen_run: Path, encoder_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another path of the same two files is current; another mean is not."""
    shutil.copytree(encoder_weights.parent, tmp_path / "moved")
    moved = tmp_path / "moved" / encoder_weights.name
    before = atomic.sha256_file(frozen_run / "model.safetensors")
    assert embed(frozen_run, moved) == 0
    config = moved.with_name("config.json")
    content = json.loads(config.read_text())
    content.get("pretrained_cfg", content)["mean"] = [0.1, 0.2, 0.3]
    config.write_text(json.dumps(content))
    assert embed(frozen_run, moved) == 1
    one_line(capsys.readouterr().err)
    assert atomic.sha256_file(frozen_run / "model.safetensors") == before


def test_other_weights_are_refused(
    frozen_run: Path, encoder_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = {
        name: value * 2 if value.is_floating_point() else value for name, value in load_file(encoder_weights).items()
    }
    save_file(state, tmp_path / "two.safetensors")
    assert embed(frozen_run, tmp_path / "two.safetensors") == 1
    one_line(capsys.readouterr().err)
