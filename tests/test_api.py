"""Tiles become embeddings, and heads predict, in pipelines and cross-validations of scikit-learn."""

import copyreg
import shutil
from collections.abc import Callable
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import estimator_checks

from pipeline.api import FittedHead, TileEmbedder, load_head, read_embeddings
from pipeline.errors import BadArtifact, BadInput, BadTile, UsageError

NAME = "torchvision:shufflenet_v2_x0_5"


@pytest.fixture(scope="module")
def tiles(prepared_base: Path) -> pd.DataFrame:
    """path, label and group of the 32 tiles."""
    paths = sorted((prepared_base / "tiles").rglob("*.png"))
    return pd.DataFrame(
        {"path": list(map(str, paths)), "label": [p.parent.name for p in paths], "group": [p.name[:2] for p in paths]}
    )


def test_rows_of_a_run_are_those_of_extract(fitted_run: Path) -> None:
    rows = read_embeddings(fitted_run / "embeddings.h5")
    paths = [str(fitted_run.parent / "tiles" / path) for path in rows.path]
    embedder = TileEmbedder(str(fitted_run), device="cpu")
    with pytest.warns(UserWarning, match=f"{(rows.split != 2).sum()} of {len(paths)} tiles served the training"):
        found = embedder.fit(paths).transform(paths)
    assert (found.dtype, found.shape) == (np.float32, rows.features.shape)
    assert np.allclose(found, rows.features, rtol=1e-4, atol=1e-5)
    test = [path for path, split in zip(paths, rows.split, strict=True) if split == 2]
    assert np.array_equal(embedder.transform(np.array(test)[:, None]), embedder.transform(test)), "a column of paths"


def test_training_tiles_are_unknown_without_the_manifest_of_the_training(fitted_run: Path) -> None:
    paths = [str(path) for path in sorted((fitted_run.parent / "tiles").rglob("*.png"))[:2]]
    manifest = fitted_run / "manifest.csv"
    manifest.write_text(manifest.read_text() + "\n")
    with pytest.warns(UserWarning, match="which tiles served the training of its network is not known"):
        TileEmbedder(fitted_run, device="cpu").transform(paths)


def test_cross_validation_by_groups(tiles: pd.DataFrame, encoder_weights: Path) -> None:
    embedder = TileEmbedder(encoder=NAME, weights=encoder_weights, device="cpu")
    assert len(embedder.get_feature_names_out()) == 1024, "without fit, which loads the network only"
    model = make_pipeline(embedder, StandardScaler(), LogisticRegression())
    scores = cross_val_score(model, tiles["path"], tiles["label"], groups=tiles["group"], cv=GroupKFold(n_splits=4))
    assert len(scores) == 4
    assert scores.mean() > 0.8, "bright and dark tiles"
    rows = embedder.fit(tiles["path"], tiles["label"], groups=tiles["group"]).transform(tiles["path"])
    assert rows.shape == (32, 1024)
    assert embedder.get_feature_names_out()[1] == "tileembedder1"


def test_copies_hold_paths_and_give_the_same_rows(
    tiles: pd.DataFrame, encoder_weights: Path, fitted_run: Path, tmp_path: Path
) -> None:
    paths = list(tiles["path"][:3])
    embedder = TileEmbedder(encoder=NAME, weights=encoder_weights, device="cpu").fit(paths)
    rows = embedder.transform(paths)
    stored = tmp_path / "embedder"
    assert joblib.hash(clone(embedder).get_params()) == joblib.hash(embedder.get_params())
    for each in (embedder, load_head(fitted_run, "svm")):
        state = each.__getstate__()
        assert not {name for name in state if name in ("_model", "_engine", "_seen", "_saved")}
        assert copyreg.__newobj__ in each.__reduce_ex__(2), "by its class and its state"
    again = TileEmbedder.__new__(TileEmbedder)
    again.__setstate__(embedder.__getstate__())
    assert np.array_equal(again.transform(paths), rows)
    assert np.array_equal(clone(embedder).transform(paths), rows)
    assert not stored.exists()


def test_other_parameters_load_another_network(tiles: pd.DataFrame, fitted_run: Path, encoder_weights: Path) -> None:
    embedder = TileEmbedder(run=fitted_run)
    with pytest.warns(UserWarning, match="served the training"):
        before = embedder.transform(list(tiles["path"][:2]))
    embedder.set_params(run=None, encoder=NAME, weights=encoder_weights)
    other = TileEmbedder(encoder=NAME, weights=encoder_weights).transform(list(tiles["path"][:2]))
    np.testing.assert_array_equal(embedder.transform(list(tiles["path"][:2])), other)
    assert before.shape != other.shape


def test_heads_predict_as_in_predictions_csv(fitted_run: Path) -> None:
    rows = read_embeddings(fitted_run / "embeddings.h5")
    table = pd.read_csv(fitted_run / "predictions.csv")
    for name in ("svm", "xgboost"):
        head = load_head(fitted_run, name)
        own = table[table["head"] == name].set_index("tile_id").loc[rows.tile_id]
        assert (head.predict(rows.features) == own["predicted"].to_numpy()).all()
        p = own[[f"p_{each}" for each in head.classes_]].to_numpy()
        assert np.allclose(head.predict_proba(rows.features), p, atol=1e-6)
    assert load_head(fitted_run).saved().names == ["svm"], "auto"
    model = make_pipeline(TileEmbedder(fitted_run, device="cpu"), load_head(fitted_run, "svm"))
    paths = [
        str(fitted_run.parent / "tiles" / path) for path, split in zip(rows.path, rows.split, strict=True) if split == 2
    ]
    assert (model.predict(paths) == load_head(fitted_run, "svm").predict(rows.features[rows.split == 2])).all()
    assert (clone(model).fit(paths, ["ADI"] * len(paths)).predict(paths) == model.predict(paths)).all(), "not refitted"


def test_what_cannot_be_used_is_an_error_of_one_line(
    fitted_run: Path, tmp_path: Path, tiles: pd.DataFrame, encoder_weights: Path
) -> None:
    good = TileEmbedder(encoder=NAME, weights=encoder_weights, device="cpu")
    (tmp_path / "bad.png").write_bytes(b"no image")
    cases: list[tuple[type[Exception], str, Callable[[], object]]] = [
        (BadInput, "either run or encoder", lambda: TileEmbedder().fit([])),
        (UsageError, "--encoder", lambda: TileEmbedder(encoder="nothing").fit([])),
        (BadInput, "no such file", lambda: TileEmbedder(encoder=NAME, weights="w.safetensors").fit([])),
        (BadArtifact, "model", lambda: TileEmbedder(tmp_path).fit([])),
        (BadTile, "bad", lambda: good.transform([tiles["path"][0], str(tmp_path / "bad.png")])),
        (ValueError, "list", lambda: good.transform("a.png")),
        (ValueError, "text", lambda: good.transform([[1.0, 2.0]])),
        (ValueError, "inconsistent", lambda: good.fit(tiles["path"], ["ADI"])),
        (BadInput, "no head 'softmax'", lambda: load_head(fitted_run, "softmax")),
        (BadInput, "no head 'mlp'", lambda: load_head(fitted_run, "mlp")),
        (BadArtifact, "predictions", lambda: load_head(tmp_path)),
        (ValueError, "finite", lambda: load_head(fitted_run).predict(np.full((2, 512), np.nan))),
    ]
    for kind, text, call in cases:
        with pytest.raises(kind, match=text):
            call()
    shutil.copy(fitted_run / "heads" / "xgboost.ubj", fitted_run / "heads" / "svm.skops")
    with pytest.raises(BadArtifact, match="svm"):
        load_head(fitted_run, "svm")


CHECKS = (
    *("no_attributes_set_in_init", "get_params_invariance", "set_params", "estimator_repr"),
    *("estimator_cloneable", "estimator_tags_renamed", "valid_tag_types"),
    *("mixin_order",),
)
"""Checks of scikit-learn that feed no numbers: here tiles are paths, and heads take rows of one width."""


@pytest.mark.parametrize("estimator", [TileEmbedder(encoder=NAME), FittedHead("run")])
@pytest.mark.parametrize("check", CHECKS)
def test_the_checks_of_scikit_learn_that_feed_no_numbers(estimator: TileEmbedder | FittedHead, check: str) -> None:
    getattr(estimator_checks, f"check_{check}")(type(estimator).__name__, estimator)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
def test_no_check_of_scikit_learn_that_applies_to_paths_fails() -> None:
    results = estimator_checks.check_estimator(TileEmbedder(encoder=NAME), on_fail=None)
    assert {each["status"] for each in results} == {"passed"}
    estimator_checks.check_parameters_default_constructible("TileEmbedder", TileEmbedder())
