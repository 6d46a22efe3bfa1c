"""Read what the encoder and the heads of a run cost, from its records and descriptions."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.comparison.heads_summary import HeadsSummary, SourceProbe, read_heads_summary
from pipeline.errors import BadArtifact
from pipeline.names import RunFile
from pipeline.storage import records
from pipeline.storage.embeddings.reader import read_header
from pipeline.storage.protocol import read_protocol


@dataclasses.dataclass(frozen=True)
class Price:
    """How a run was made, and what its network costs; None: not known."""

    arch: str | None = None
    start_weights: str | None = None
    """None: trained from random weights."""

    tile_px: int | None = None
    parameters: int | None = None
    dimension: int | None = None
    """Width of an embedding."""

    bytes_per_tile: int | None = None
    """Size of the stored features of a tile."""

    gflops: float | None = None
    """Floating point operations of the network for one tile, all its views, in 10^9."""

    tiles_per_second: float | None = None
    """Measured while the tiles were embedded, by the machine and in the way of `embedded_by`."""

    train_seconds: float | None = None
    """Time of all training steps, summed over the networks of the run."""

    embedded_by: str | None = None
    """Engine, precision and device, e.g. "torch, bf16, cpu"."""

    fit_seconds: Mapping[str, float] = dataclasses.field(default_factory=dict)
    """Head -> time of its search and fit; the mean over the parts of a plan."""

    probe: SourceProbe | str = "not measured"
    """How well the embeddings predict the group of a tile, or why that is not known."""


@dataclasses.dataclass(frozen=True)
class EmbeddingFacts:
    """What the record of embeddings.h5 states; None: not known."""

    views: int = 1
    way: str | None = None
    """Engine, precision and device."""

    tiles_per_second: float | None = None
    bytes_per_value: int | None = None


def read_price(run: Path) -> Price:
    """Return how a run was made and what it costs, from the files that are there.

    A run of a cross-validation plan has one network a part: costs are of one of them, rates are means, times are sums.

    Raises:
        BadArtifact: a file is damaged, was edited, or breaks its schema.
    """
    protocol = read_protocol(run)
    parts = [] if protocol is None else [part for part in protocol.parts if part.arm == protocol.main_arm]
    folders = [run] if protocol is None else [protocol.folder(part) for part in parts]
    seconds = [_train_seconds(path) for folder in folders if (path := folder / RunFile.HISTORY).is_file()]
    embedded = [_embedding(folder) for folder in folders]
    ways = dict.fromkeys(each.way for each in embedded)
    rates = [each.tiles_per_second for each in embedded if each.tiles_per_second is not None]
    summary = _summary(run)
    price = Price(
        train_seconds=sum(seconds) if len(seconds) == len(folders) else None,
        embedded_by="; ".join(way for way in ways if way is not None) or None,
        tiles_per_second=sum(rates) / len(rates) if rates else None,
        fit_seconds={} if summary is None else _fit_seconds(summary),
        probe="not measured" if summary is None else summary.probe,
    )
    if not (folders[0] / RunFile.MODEL_FACTS).is_file():
        return _imported(price, folders[0])
    n_networks = 1 if protocol is None else max(1, protocol.n_inner)
    return _with_network(price, folders[0], embedded[0], n_networks=n_networks)


def _train_seconds(path: Path) -> float:
    """Return the time of all steps of a history.csv."""
    try:
        seconds = pd.read_csv(path)["seconds"].to_numpy(np.float64)
    except (ValueError, KeyError):  # pandas' errors of reading are ValueErrors
        seconds = np.array([np.nan])
    if not np.isfinite(seconds).all():
        raise BadArtifact(f"{path}: no column seconds with a number in each row: restore it or train again")
    return float(seconds.sum())


def _with_network(price: Price, folder: Path, embedded: EmbeddingFacts, *, n_networks: int) -> Price:
    """Return the price with the costs of the network of a run or of a part.

    Args:
        price: what is known without the network.
        folder: of model.json.
        embedded: how the tiles were embedded.
        n_networks: number of networks whose rows a tile needs.
    """
    from pipeline.network.model_file import read_description

    path = folder / RunFile.MODEL
    model = read_description(path, records.read_record_alone(path))
    arch, size, start = str(model["arch"]), int(model["preprocess"]["size"]), model.get("init")
    if (encoder := model.get("encoder")) is not None:
        try:
            numbers = [float(encoder[name]) for name in ("parameters", "dimension", "gflops")]
            if not np.isfinite(numbers).all():
                raise ValueError
            parameters, dimension, gflops = int(numbers[0]), int(numbers[1]), numbers[2]
            start = f"{encoder['weights']}, frozen"
        except (KeyError, TypeError, ValueError):
            raise BadArtifact(
                f"{folder / RunFile.MODEL_FACTS}: its encoder has no numbers: run extract again"
            ) from None
        price = dataclasses.replace(price, train_seconds=0.0)
    else:
        parameters, dimension, gflops = network_cost(arch, size, n_classes=len(model["classes"]))
    per_value = embedded.bytes_per_value
    return dataclasses.replace(
        price,
        arch=arch,
        start_weights=None if start is None else str(start),
        tile_px=size,
        parameters=parameters,
        dimension=dimension,
        bytes_per_tile=None if per_value is None else per_value * dimension,
        gflops=gflops * embedded.views * n_networks,
    )


def network_cost(arch: str, size: int, *, n_classes: int) -> tuple[int, int, float]:
    """Return parameters, width of an embedding and GFLOP for one tile of `size` px."""
    from pipeline.network.resnet import empty_network, flops_per_tile

    network = empty_network(arch, n_classes)
    n_parameters = sum(parameter.numel() for parameter in network.parameters())
    return n_parameters, network.fc.in_features, flops_per_tile(network, size) / 1e9


def _embedding(folder: Path) -> EmbeddingFacts:
    """Return what the record of the embeddings in a folder states; nothing without a record."""
    path = folder / RunFile.EMBEDDINGS
    if not records.record_path(path).is_file():
        return EmbeddingFacts()
    record = records.read_record_alone(path)
    details, options = record["details"], record["options"]
    way = [details.get("engine"), details.get("precision"), record.get("device")]
    views, rate = details.get("views", 1), details.get("tiles_per_second")
    return EmbeddingFacts(
        views=views if isinstance(views, int) and views > 0 else 1,
        way=", ".join(str(each) for each in way if each is not None) or None,
        tiles_per_second=float(rate) if isinstance(rate, int | float) else None,
        bytes_per_value={"float32": 4, "float16": 2}.get(str(options.get("dtype"))),
    )


def _imported(price: Price, folder: Path) -> Price:
    """Return the price with what is known of the encoder of imported embeddings."""
    path = folder / RunFile.EMBEDDINGS
    if not path.is_file():
        return price
    header = read_header(path)
    width = header.shape[1]
    encoder = records.read_record_alone(path)["details"].get("encoder")
    name = encoder.get("name") if isinstance(encoder, dict) else None
    return dataclasses.replace(
        price,
        arch=None if name is None else str(name),
        start_weights="not known",
        dimension=width,
        bytes_per_tile=width * np.dtype(header.dtype).itemsize,
    )


def _summary(run: Path) -> HeadsSummary | None:
    path = run / RunFile.HEADS
    if not path.is_file():
        return None
    try:
        return read_heads_summary(path)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise BadArtifact(f"{path}: its content breaks the schema: run fit_heads again") from None


def _fit_seconds(summary: HeadsSummary) -> dict[str, float]:
    """Return head -> seconds of its search and fit, of the heads whose time is known."""
    found = {}
    for head, facts in summary.heads.items():
        known = [facts.costs[name] for name in ("search_seconds", "fit_seconds") if name in facts.costs]
        if known:
            found[head] = sum(known)
    return found
