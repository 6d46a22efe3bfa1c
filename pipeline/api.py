"""Use networks, embeddings and heads of a run as objects of scikit-learn.

    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GroupKFold, cross_val_score
    from sklearn.pipeline import make_pipeline
    from pipeline.api import TileEmbedder

    model = make_pipeline(TileEmbedder(encoder="torchvision:resnet50"), LogisticRegression())
    cross_val_score(model, paths, labels, groups=patients, cv=GroupKFold())

Objects hold paths and options, not weights: they are small when they are cloned or sent to another process. Errors are
subclasses of `pipeline.errors.PipelineError`, with one line of text.
"""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_consistent_length

from pipeline.errors import BadInput, BadTile
from pipeline.names import RunFile
from pipeline.storage.embeddings.reader import Embeddings
from pipeline.storage.embeddings.reader import read_embeddings as _read_embeddings

if TYPE_CHECKING:
    from pipeline.inference.saved_heads import SavedHeads
    from pipeline.network.engines import Engine
    from pipeline.network.model_file import Model
    from pipeline.storage.predictions.csv_table import HeadOutput

__all__ = ["FittedHead", "TileEmbedder", "load_head", "read_embeddings"]

Location = str | Path


def read_embeddings(path: Location) -> Embeddings:
    """Return the rows of an embeddings file as arrays, after checking it against the schema.

    Args:
        path: `embeddings.h5` of a run or of a slide.

    Raises:
        BadArtifact: names the rule that the file breaks.
    """
    return _read_embeddings(Path(path))


def load_head(run: Location, head: str = "auto") -> "FittedHead":
    """Return a fitted head of a run.

    Args:
        run: the run folder, or one part of a plan.
        head: logistic, svm, xgboost or linear; auto: the first one that the run has.

    Raises:
        BadInput: no such head, or one that needs more than the features of a tile.
        BadArtifact, StaleInput: a file of the run is missing, damaged or stale.
    """
    found = FittedHead(run, head)
    found.saved()
    return found


class _ByPath(BaseEstimator):
    """Drop what was loaded from files when an object is copied or stored; the files are read again."""

    _loaded: tuple[str, ...] = ()
    """Attributes that hold the content of files."""

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in super().__getstate__().items() if name not in self._loaded}

    def set_params(self, **params: Any) -> Self:
        """Set parameters; what was loaded for the former ones is dropped."""
        for name in self._loaded:
            self.__dict__.pop(name, None)
        return super().set_params(**params)


class TileEmbedder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, _ByPath):
    """Turn tiles, given by the paths of their images, into embeddings (N, D) float32.

    Nothing is fitted: `fit` loads the network. Rows are those of `extract --engine torch --embed-precision fp32`.

    Args:
        run: run folder whose network is used; its training tiles have optimistic embeddings, and a warning counts them.
        encoder: in place of a run, a frozen encoder: `torchvision:<network>` or `timm:<network>`.
        weights: of the encoder: "default", or a .safetensors or .pth file.
        device: auto, cpu, cuda or mps.
        batch: tiles per forward pass; None: as `extract` has it.
        workers: processes that decode tiles.
    """

    _loaded = ("_model", "_engine", "_seen")
    _seen: frozenset[str] | None
    """SHA-256 of the pixels that the network was trained or selected on; None: not known."""

    def __init__(
        self,
        run: Location | None = None,
        *,
        encoder: str | None = None,
        weights: Location = "default",
        device: str = "auto",
        batch: int | None = None,
        workers: int = 0,
    ) -> None:
        self.run, self.encoder, self.weights = run, encoder, weights
        self.device, self.batch, self.workers = device, batch, workers

    def fit(self, X: Sequence[Location], y: Any = None, *, groups: Any = None) -> Self:
        """Load the network, so that a wrong name or file is an error here; labels and groups are not used.

        Raises:
            PipelineError: the network cannot be loaded.
            ValueError: paths, labels and groups differ in number.
        """
        check_consistent_length(_paths(X), y, groups)
        self._network()
        return self

    def transform(self, X: Sequence[Location]) -> np.ndarray:
        """Return the embeddings (N, D) float32 of N tiles.

        Raises:
            BadTile: a tile cannot be read; names the first.
            PipelineError: the network cannot be loaded, or gives a number that is not finite.
        """
        from pipeline.network.extraction.forward import embed_batches
        from pipeline.network.tile_files import TileFiles

        model, paths = self._network(), _paths(X)
        rows = np.empty((len(paths), model.width), np.float32)
        tiles, n_seen = TileFiles(Path(), paths, None, model.preprocess), 0
        for batch, features, _ in embed_batches(self._engine_of(model), tiles, first=0, workers=self.workers):
            if problem := next(filter(None, batch.problems), ""):
                raise BadTile(problem)
            rows[batch.rows] = features
            n_seen += sum(bytes(each).hex() in (self._seen or ()) for each in batch.sha256)
        if self._seen is None:
            warnings.warn(
                f"{self.run}: which tiles served the training of its network is not known: its manifest is missing or "
                "another one",
                stacklevel=2,
            )
        if n_seen:
            warnings.warn(
                f"{n_seen} of {len(paths)} tiles served the training of the network of {self.run}: scores on their "
                "embeddings are optimistic",
                stacklevel=2,
            )
        return rows

    def _network(self) -> "Model":
        """Return the network, loaded from its files unless it is there."""
        if not hasattr(self, "_model"):
            from pipeline.network.model_file import Model, load_model

            if (self.run is None) == (self.encoder is None):
                raise BadInput("TileEmbedder: give either run or encoder")
            seen: frozenset[str] | None = frozenset()
            if self.run is not None:
                model = load_model(Path(self.run) / RunFile.MODEL)
                if model.preprocess.stains is not None:
                    raise BadInput(f"{self.run}: its network sees tiles normalised by source: use `extract`")
                seen = _training_tiles(Path(self.run), model)
            else:
                from pipeline.network.encoders.install import Choice, load_encoder

                loaded = load_encoder(Choice(str(self.encoder), str(self.weights)))
                info = {"arch": str(loaded.architecture), "classes": [], "preprocess": loaded.preprocess.as_json()}
                model = Model(loaded.encoder, info | {"encoder": loaded.facts}, {})
            self._seen, self._model = seen, model
        return self._model

    @property
    def _n_features_out(self) -> int:
        """Number of features D, for scikit-learn's names of columns."""
        return self._network().width

    def _engine_of(self, model: "Model") -> "Engine":
        if not hasattr(self, "_engine"):
            from pipeline.network.engines import build_engine, default_batch
            from pipeline.runtime.device import named_device

            device = named_device(self.device)
            batch = self.batch or default_batch(device, model.preprocess.input_px)
            self._engine = build_engine("torch", model, device=device, precision="fp32", batch=batch)
        return self._engine

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.input_tags.string, tags.input_tags.two_d_array = True, False
        tags.no_validation = True
        return tags


class FittedHead(ClassifierMixin, _ByPath):
    """A head of a run, as it predicts in `predictions.csv`: calibrated, with the run's rule of decision.

    `fit` changes nothing. Input are embeddings (N, D) by the network of the run, as `TileEmbedder(run)` gives them.

    Args:
        run: the run folder, or one part of a plan.
        head: logistic, svm, xgboost or linear; auto: the first one that the run has.
    """

    _loaded = ("_saved",)

    def __init__(self, run: Location, head: str = "auto") -> None:
        self.run, self.head = run, head

    @property
    def classes_(self) -> np.ndarray:
        """(K,) names of the classes, in the order of the probabilities."""
        return np.array(self.saved().classes)

    def fit(self, X: Any, y: Any = None) -> Self:
        """Return the head as it is: it was fitted by `fit_heads`."""
        self.saved()
        return self

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Return the class names (N,) of embeddings (N, D)."""
        return self.classes_[self._output(X).predicted]

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """Return the calibrated probabilities (N, K) of embeddings (N, D)."""
        return self._output(X).p

    def _output(self, X: np.ndarray) -> "HeadOutput":
        from pipeline.heads.rows import EMBEDDINGS

        saved = self.saved()
        features = np.asarray(X, dtype=np.float32)
        if features.ndim != 2 or not np.isfinite(features).all():
            raise ValueError("embeddings must be (N, D) finite numbers")
        return saved.predict({EMBEDDINGS: features.astype(saved.dtype).astype(np.float32)})[saved.names[0]]

    def saved(self) -> "SavedHeads":
        """Return the content of the head's files, read unless it is there.

        Raises:
            BadInput: no such head, or one that needs more than the features of a tile.
            BadArtifact, StaleInput: a file of the run is missing, damaged or stale.
        """
        if not hasattr(self, "_saved"):
            from pipeline.inference.find_heads import read_saved_head

            self._saved = read_saved_head(Path(self.run), self.head)
        return self._saved

    def __sklearn_is_fitted__(self) -> bool:
        return True


def _paths(X: Sequence[Location]) -> list[str]:
    """Return paths as text; they are a list, an array (N,), or one column (N, 1)."""
    if isinstance(X, str | Path):
        raise ValueError(f"paths of tiles must be a list, but are {X}")
    array = np.asarray(X, dtype=object)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1 or not all(isinstance(each, str | Path) for each in array):
        raise ValueError("paths of tiles must be a list of text")
    return [str(each) for each in array]


def _training_tiles(run: Path, model: "Model") -> frozenset[str] | None:
    """Return the SHA-256 of the pixels of the tiles that a network was trained or selected on; none for an encoder.

    None: the manifest next to the network is not the one that it was trained on.
    """
    from pipeline.names import TRAINED
    from pipeline.network.extraction.slide_model import manifest_of

    if model.encoder != TRAINED:
        return frozenset()
    manifest = manifest_of(run / RunFile.MODEL)
    if manifest is None:
        return None
    table = manifest.table
    return frozenset(table["sha256"][table["split"].isin(["train", "val"])]) - {""}
