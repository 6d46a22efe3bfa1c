"""Engine and precision follow from hardware, libraries, number of tiles and the check; nothing is timed."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.errors import PipelineError, UsageError
from pipeline.network import precision as precisions
from pipeline.network.engines import Engine, EngineRequest, select_engine
from pipeline.network.engines import select as module
from pipeline.network.engines.check import in_plain_fp32
from pipeline.network.engines.select import OPENVINO_TILES, Selection
from pipeline.network.model_file import Model
from pipeline.network.preprocess import Preprocess
from pipeline.network.tile_files import TileSource
from pipeline.tiles.stain_normalisation import Source

CPU = torch.device("cpu")
FEW, MANY = OPENVINO_TILES - 1, OPENVINO_TILES


class Tiles(TileSource):
    """Tiles of a tensor (N, 3, S, S) uint8."""

    def __init__(self, pixels: torch.Tensor) -> None:
        super().__init__(Path(), Preprocess(pixels.shape[-1]), [Source()] * len(pixels))
        self.pixels = pixels

    def __len__(self) -> int:
        return len(self.pixels)

    def name(self, row: int) -> str:
        return str(row)

    def read(self, row: int) -> tuple[np.ndarray, bytes]:
        return self.pixels[row].permute(1, 2, 0).numpy(), bytes(32)


class Fake(Engine):
    """Returns the output of plain fp32, or a wrong one."""

    def __init__(self, engines: "Engines", name: str, precision: str) -> None:
        self.name, self.precision, self.batch, self.engines = name, precision, 4, engines

    def start(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels

    def finish(self, started: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
        assert self.views == 1, "single passes are compared"
        features, logits = in_plain_fp32(self.engines.model, started)
        return features[:, :: -1 if (self.name, self.precision) in self.engines.wrong else 1], logits


class Engines:
    """Engines that may be missing or wrong."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.wrong: set[tuple[str, str]] = set()
        self.missing: set[str] = set()
        self.built: list[tuple[str, str]] = []

    def build(self, name: str, model: Model, *, precision: str, **how: object) -> Engine:
        if name in self.missing:
            raise PipelineError(f"{name} is missing")
        self.built.append((name, precision))
        return Fake(self, name, precision)


@pytest.fixture
def engines(model: Model, monkeypatch: pytest.MonkeyPatch) -> Engines:
    """Fake engines on a machine that computes in bf16."""
    torch.set_num_threads(1)
    made = Engines(model)
    monkeypatch.setattr(module, "build_engine", made.build)
    monkeypatch.setattr(module, "default_precision", lambda device: "bf16" if device.type != "mps" else "fp32")
    return made


def select(
    engines: Engines,
    tiles: torch.Tensor,
    engine: str = "auto",
    precision: str = "auto",
    *,
    n_tiles: int = MANY,
    force: bool = False,
) -> Selection:
    request = EngineRequest(CPU, 4, n_tiles, engine, precision, force=force)
    return select_engine(request, engines.model, Tiles(tiles), {})


@pytest.mark.parametrize(
    ("device", "n_tiles", "candidates"),
    [
        ("cpu", MANY, ["openvino bf16", "openvino fp32", "torch bf16", "torch fp32"]),
        ("cpu", FEW, ["torch bf16", "torch fp32"]),
        ("cuda", MANY, ["torch bf16", "torch fp32"]),
        ("mps", MANY, ["torch fp32"]),
    ],
)
def test_the_rule_by_device_and_number_of_tiles(
    engines: Engines, device: str, n_tiles: int, candidates: list[str]
) -> None:
    request = EngineRequest(torch.device(device), 4, n_tiles)
    assert [" ".join(candidate) for candidate in request.candidates()] == candidates


@pytest.mark.parametrize(
    ("listed", "candidates"),
    [
        ("avx512_bf16", ["openvino bf16", "openvino fp32", "torch bf16", "torch fp32"]),
        ("amx_bf16", ["openvino bf16", "openvino fp32", "torch bf16", "torch fp32"]),
        ("avx2", ["openvino fp32", "torch fp32"]),
    ],
)
def test_the_rule_by_the_instructions_of_the_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, listed: str, candidates: list[str]
) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text(f"flags : fpu {listed}\n")
    monkeypatch.setattr(precisions, "CPU_INFO", info)
    assert [" ".join(candidate) for candidate in EngineRequest(CPU, 4, MANY).candidates()] == candidates


@pytest.mark.parametrize(
    ("engine", "precision", "candidates"),
    [
        ("torch", "fp32", ["torch fp32"]),
        ("compiled", "auto", ["compiled bf16", "compiled fp32"]),
        ("openvino", "bf16", ["openvino bf16"]),
        ("auto", "bf16", ["openvino bf16", "torch bf16"]),
        ("auto", "int8", ["openvino int8"]),
    ],
)
def test_what_the_user_names_is_kept(engines: Engines, engine: str, precision: str, candidates: list[str]) -> None:
    request = EngineRequest(CPU, 4, MANY, engine, precision)
    assert [" ".join(candidate) for candidate in request.candidates()] == candidates


def test_the_first_that_agrees_is_taken_and_no_other_is_built(engines: Engines, tiles: torch.Tensor) -> None:
    selection = select(engines, tiles)
    assert (selection.engine.name, selection.engine.precision) == ("openvino", "bf16")
    assert engines.built == [("openvino", "bf16")]
    assert selection.agreement is not None
    assert selection.agreement.passes
    assert selection.agreement.tiles == len(tiles)
    assert selection.rejected == ()


def test_fp32_is_taken_where_bf16_does_not_agree(engines: Engines, tiles: torch.Tensor) -> None:
    engines.wrong = {("openvino", "bf16")}
    selection = select(engines, tiles)
    assert (selection.engine.name, selection.engine.precision) == ("openvino", "fp32")
    assert len(selection.rejected) == 1
    assert "not openvino bf16, which fails with cosine" in str(selection)
    assert "\n" not in str(selection)


def test_torch_is_taken_where_openvino_is_missing(engines: Engines, tiles: torch.Tensor) -> None:
    engines.missing = {"openvino"}
    selection = select(engines, tiles)
    assert (selection.engine.name, selection.engine.precision) == ("torch", "bf16")
    assert str(selection).count("openvino is missing") == 2


def test_a_named_engine_that_is_missing_is_an_error(engines: Engines, tiles: torch.Tensor) -> None:
    engines.missing = {"openvino"}
    with pytest.raises(PipelineError, match="openvino is missing"):
        select(engines, tiles, "openvino")


@pytest.mark.parametrize("precision", ["auto", "bf16"])
def test_an_engine_that_does_not_agree_is_refused_unless_forced(
    engines: Engines, tiles: torch.Tensor, precision: str
) -> None:
    engines.wrong = {("torch", "bf16"), ("torch", "fp32")}
    with pytest.raises(PipelineError, match="or --force to use it") as caught:
        select(engines, tiles, "torch", precision)
    assert str(caught.value).count("which fails with cosine") == (2 if precision == "auto" else 1)
    selection = select(engines, tiles, "torch", precision, force=True)
    assert (selection.engine.name, selection.engine.precision) == ("torch", "bf16")
    assert selection.agreement is not None
    assert not selection.agreement.passes


def test_a_precision_that_the_engine_does_not_know_is_a_usage_error(model: Model, tiles: torch.Tensor) -> None:
    with pytest.raises(UsageError, match="known are"):
        select_engine(EngineRequest(CPU, 4, MANY, "torch", "int8"), model, Tiles(tiles), {})


def test_without_a_tile_nothing_is_compared(engines: Engines, tiles: torch.Tensor) -> None:
    selection = select(engines, tiles[:0])
    assert (selection.engine.name, selection.engine.precision) == ("openvino", "bf16")
    assert selection.agreement is None


def test_a_broken_network_is_left_to_the_pass_that_names_the_tile(
    engines: Engines, tiles: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "in_plain_fp32", lambda *_: (np.full((11, 4), np.inf), np.zeros((11, 3))))
    assert select(engines, tiles).agreement is None


def test_an_engine_is_built_once_for_several_slides(engines: Engines, tiles: torch.Tensor) -> None:
    """The decision of one slide does not bind the next one."""
    built: dict[tuple[str, str], Engine] = {}
    request = EngineRequest(CPU, 4, MANY)
    engines.wrong = {("openvino", "bf16")}
    first = select_engine(request, engines.model, Tiles(tiles), built)
    first.engine.views = 8
    engines.wrong = set()
    second = select_engine(request, engines.model, Tiles(tiles), built)
    third = select_engine(request, engines.model, Tiles(tiles), built)
    assert [one.engine.precision for one in (first, second, third)] == ["fp32", "bf16", "bf16"]
    assert engines.built == [("openvino", "bf16"), ("openvino", "fp32")]


def test_a_missing_library_leaves_torch(model: Model, tiles: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the real engines, on fewer tiles than a batch."""
    monkeypatch.setattr(precisions, "CPU_INFO", Path("not there"))
    monkeypatch.setitem(sys.modules, "openvino", None)
    selection = select_engine(EngineRequest(CPU, 16, MANY), model, Tiles(tiles), {})
    assert (selection.engine.name, selection.engine.precision) == ("torch", "fp32")
    assert "pip install 'histoheads[cpu]'" in str(selection)
    assert selection.agreement is not None
    assert selection.agreement.tiles == 11
