"""auto takes the fastest engine that agrees with fp32, by a margin, and prepares none that cannot pay for it."""

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.errors import PipelineError
from pipeline.network import precision as precisions
from pipeline.network.engines import Engine, choose_engine
from pipeline.network.engines import select as module
from pipeline.network.engines.check import in_plain_fp32
from pipeline.network.engines.select import PROSPECTS, Choice, Prospect
from pipeline.network.model_file import Model

CPU = torch.device("cpu")
MANY = 1_000_000


class Fake(Engine):
    """Gives plain fp32's answers, some of them spoilt, and moves a clock in place of taking time."""

    def __init__(self, world: "World", name: str, precision: str) -> None:
        self.name, self.precision, self.batch, self.world = name, precision, 4, world

    def start(self, pixels: torch.Tensor) -> torch.Tensor:
        self.world.ran.append(self.name)
        self.world.now += self.batch / self.world.rates[self.name]
        return pixels

    def finish(self, started: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
        features, logits = self.world.known(started)
        if (self.name, self.precision) in self.world.spoilt:
            features = features[:, ::-1]
        return features, logits


class World:
    """Engines of known rates."""

    def __init__(self, model: Model, tiles: torch.Tensor) -> None:
        self.model, self.now = model, 0.0
        every = torch.cat([tiles, torch.zeros_like(tiles[:1])])  # the empty tile that batches are filled up with
        self.rows = {
            tile.numpy().tobytes(): (f, z) for tile, f, z in zip(every, *in_plain_fp32(model, every), strict=True)
        }
        self.rates = {"torch": 100.0, "openvino": 100.0, "compiled": 100.0}
        self.spoilt: set[tuple[str, str]] = set()
        self.missing: set[str] = set()
        self.built: list[tuple[str, str]] = []
        self.ran: list[str] = []

    def known(self, tiles: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
        rows = [self.rows[tile.numpy().tobytes()] for tile in tiles]
        return np.stack([f for f, _ in rows]), np.stack([z for _, z in rows])

    def build(self, name: str, model: Model, *, precision: str, **how: object) -> Engine:
        if name in self.missing:
            raise PipelineError(f"{name} is missing")
        self.built.append((name, precision))
        return Fake(self, name, precision)

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def world(model: Model, tiles: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> World:
    torch.set_num_threads(1)
    made = World(model, tiles)
    monkeypatch.setattr(module, "in_plain_fp32", lambda _, pixels: made.known(pixels))
    monkeypatch.setattr(module, "build_engine", made.build)
    monkeypatch.setattr(module.time, "perf_counter", made.perf_counter)
    monkeypatch.setattr(module, "choose_precision", lambda asked, device: "bf16" if asked == "auto" else asked)
    monkeypatch.setattr(
        module, "PROSPECTS", {("cpu", "openvino"): Prospect(3, 10), ("cpu", "compiled"): Prospect(2, 100)}
    )
    return made


def choose(
    world: World,
    tiles: torch.Tensor,
    asked: str = "auto",
    precision: str = "bf16",
    *,
    n_tiles: int = MANY,
    force: bool = False,
) -> Choice:
    return choose_engine(
        asked, world.model, tiles, device=CPU, precision=precision, batch=4, n_tiles=n_tiles, force=force
    )


@pytest.mark.parametrize(
    ("openvino", "compiled", "chosen"),
    [
        (114, 114, "torch"),
        (116, 100, "openvino"),
        (116, 130, "openvino"),  # 12 % more than openvino
        (116, 140, "compiled"),
        (110, 120, "compiled"),
        (50, 110, "torch"),
    ],
)
def test_a_simpler_engine_is_left_for_a_clear_gain_only(
    world: World, tiles: torch.Tensor, openvino: float, compiled: float, chosen: str
) -> None:
    world.rates |= {"openvino": openvino, "compiled": compiled}
    choice = choose(world, tiles)
    assert (choice.engine.name, choice.engine.precision) == (chosen, "bf16")
    assert choice.agreement is not None
    assert choice.agreement.passes
    assert {candidate.engine: candidate.rate for candidate in choice.candidates} == pytest.approx(world.rates)
    assert choice.reason.startswith(f"{chosen} bf16, {world.rates[chosen]:.0f} tiles/s")
    assert "\n" not in choice.reason


def test_timing_goes_in_turn(world: World, tiles: torch.Tensor) -> None:
    """Of two engines one after the other, a busy minute would meet one."""
    choose(world, tiles)
    last = world.ran[-3 * module.ROUND_BATCHES * module.ROUNDS :]
    turn = [name for name in ("torch", "openvino", "compiled") for _ in range(module.ROUND_BATCHES)]
    assert last == turn * module.ROUNDS


def test_a_fast_engine_that_says_something_else_is_not_taken(world: World, tiles: torch.Tensor) -> None:
    world.rates["openvino"], world.spoilt = 900, {("openvino", "bf16")}
    choice = choose(world, tiles)
    assert choice.engine.name == "torch"
    assert "openvino bf16, 900 tiles/s, fails with cosine" in choice.reason


def test_where_the_simplest_fails_another_one_that_agrees_is_taken(world: World, tiles: torch.Tensor) -> None:
    world.spoilt = {("torch", "bf16")}
    assert choose(world, tiles).engine.name == "openvino"


def test_auto_precision_falls_back_on_fp32(world: World, tiles: torch.Tensor) -> None:
    world.spoilt = {(name, "bf16") for name in world.rates}
    world.rates["openvino"] = 200
    choice = choose(world, tiles, precision="auto")
    assert (choice.engine.name, choice.engine.precision) == ("openvino", "fp32")
    assert len(choice.candidates) == 6


@pytest.mark.parametrize(("asked", "precision"), [("auto", "bf16"), ("openvino", "bf16"), ("torch", "fp32")])
def test_what_was_asked_for_and_fails_stops_in_one_line_but_for_force(
    world: World, tiles: torch.Tensor, asked: str, precision: str
) -> None:
    world.spoilt = {(name, p) for name in world.rates for p in ("bf16", "fp32")}
    with pytest.raises(PipelineError, match=r"fails with cosine -?0\..* or --force to use it") as caught:
        choose(world, tiles, asked, precision)
    assert "\n" not in str(caught.value)
    choice = choose(world, tiles, asked, precision, force=True)
    assert choice.engine.name == ("torch" if asked == "auto" else asked)
    assert choice.agreement is not None
    assert not choice.agreement.passes


def test_what_was_asked_for_is_checked_and_not_timed(world: World, tiles: torch.Tensor) -> None:
    choice = choose(world, tiles, "compiled")
    assert world.built == [("compiled", "bf16")]
    assert len(world.ran) == 3  # the eleven tiles, once
    assert [candidate.rate for candidate in choice.candidates] == [None]


@pytest.mark.parametrize(
    ("n_tiles", "built"),
    [
        (100, ["torch"]),  # a second of work
        (1499, ["torch"]),  # openvino could save n (1/100 - 1/300) seconds and takes 10
        (1501, ["torch", "openvino"]),
        (19_900, ["torch", "openvino"]),  # compiled could save n (1/100 - 1/200) and takes 100
        (20_100, ["torch", "openvino", "compiled"]),
    ],
)
def test_an_engine_is_prepared_only_if_it_can_save_as_much(
    world: World, tiles: torch.Tensor, n_tiles: int, built: list[str]
) -> None:
    choice = choose(world, tiles, n_tiles=n_tiles)
    assert world.built == [(name, "bf16") for name in built]
    for candidate in choice.candidates:
        assert (candidate.problem == "") is (candidate.engine in built)


def test_an_engine_that_cannot_beat_the_best_so_far_is_not_prepared(world: World, tiles: torch.Tensor) -> None:
    """compiled gains at most 2 over torch; openvino has shown more."""
    world.rates["openvino"] = 250
    choice = choose(world, tiles)
    assert choice.engine.name == "openvino"
    assert ("compiled", "bf16") not in world.built


def test_an_engine_that_is_missing_is_passed_over_by_auto_and_told(world: World, tiles: torch.Tensor) -> None:
    world.missing = {"openvino"}
    choice = choose(world, tiles)
    assert choice.engine.name == "torch"
    assert "openvino bf16, cannot be used (openvino is missing)" in choice.reason
    with pytest.raises(PipelineError, match=r"^openvino is missing$"):
        choose(world, tiles, "openvino")


def test_int8_is_taken_on_request_only(world: World, tiles: torch.Tensor) -> None:
    choose(world, tiles, precision="auto")
    assert {precision for _, precision in world.built} <= {"bf16", "fp32"}
    choice = choose(world, tiles, precision="int8")
    assert (choice.engine.name, choice.engine.precision) == ("openvino", "int8")


def test_without_a_tile_nothing_is_compared(world: World, tiles: torch.Tensor) -> None:
    choice = choose(world, tiles[:0])
    assert (choice.engine.name, choice.agreement, world.ran) == ("torch", None, [])


def test_a_network_that_is_broken_is_left_to_the_pass_that_names_the_tile(
    world: World, tiles: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "in_plain_fp32", lambda *_: (np.full((11, 4), np.inf), np.zeros((11, 3))))
    assert choose(world, tiles).engine.name == "torch"


def test_the_rows_of_the_check_come_from_the_whole_sample(
    model: Model, tiles: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the real engines, on fewer tiles than a batch."""
    monkeypatch.setattr(precisions, "CPU_INFO", Path("not there"))
    choice = choose_engine("auto", model, tiles, device=CPU, precision="auto", batch=16, n_tiles=11)
    assert (choice.engine.name, choice.engine.precision) == ("torch", "fp32")
    assert choice.agreement is not None
    assert choice.agreement.tiles == 11


def test_a_missing_library_leaves_auto_with_torch(
    model: Model, tiles: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PROSPECTS", {("cpu", "openvino"): Prospect(1e9, -1e9)})
    monkeypatch.setitem(sys.modules, "openvino", None)
    choice = choose_engine("auto", model, tiles, device=CPU, precision="fp32", batch=4, n_tiles=11)
    assert choice.engine.name == "torch"
    assert "pip install 'histoheads[cpu]'" in choice.reason


def test_prospects_stand_on_engines_that_run_on_the_device() -> None:
    from pipeline.network.engines.build import DEVICES

    assert all(kind in DEVICES[name] for kind, name in PROSPECTS)
    assert all(prospect.most_gain > module.GAIN for prospect in PROSPECTS.values())


def test_a_round_takes_full_batches(world: World, tiles: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    run = Engine.run

    def spied(self: Engine, batches: Iterable[torch.Tensor]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        kept = list(batches)
        sizes.extend(len(batch) for batch in kept)
        return run(self, kept)

    monkeypatch.setattr(Engine, "run", spied)
    choose(world, tiles[:3], n_tiles=1)
    assert sizes == [3] + [4] * module.ROUNDS * module.ROUND_BATCHES
