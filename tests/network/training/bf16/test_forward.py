"""The walk through a network leaves it as it is and trains it as the eager network."""

import copy

import numpy as np
import pytest
import torch
from torch.nn import functional

from pipeline.network.distributed import Ranks
from pipeline.network.precision import Precision, autocast
from pipeline.network.preprocess import Preprocess
from pipeline.network.resnet import ARCHITECTURES, ResNet, as_channels_last, build_network
from pipeline.network.training import step as step_module
from pipeline.network.training.bf16 import norm as norm_module
from pipeline.network.training.bf16.forward import applies, forward
from pipeline.network.training.recipe import Recipe
from pipeline.network.training.step import TrainStep

pytest.importorskip("numba")

CPU = torch.device("cpu")


def network_of(arch: str) -> ResNet:
    network = build_network(arch, n_classes=3, seed=1)
    as_channels_last(network, CPU)
    return network.train()


def images(n: int, side: int) -> torch.Tensor:
    torch.manual_seed(2)
    return torch.randn(n, 3, side, side).contiguous(memory_format=torch.channels_last)


def loss_of(network: ResNet, x: torch.Tensor, *, walks: bool) -> torch.Tensor:
    with autocast(CPU, "bf16"):
        scores = forward(network, x) if walks else network(x)
    return functional.cross_entropy(scores.float(), torch.arange(len(x)) % 3)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_a_step_is_near_the_eager_one(arch: str) -> None:
    network, x = network_of(arch), images(4, 40)
    eager = copy.deepcopy(network)
    losses = [loss_of(network, x, walks=True), loss_of(eager, x, walks=False)]
    assert losses[0].item() == pytest.approx(losses[1].item(), rel=0.05)
    losses[0].backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters() if parameter.grad is not None)
    ours, theirs = network.state_dict(), eager.state_dict()
    assert list(ours) == list(theirs)
    for name, value in theirs.items():
        assert ours[name].dtype == value.dtype
        assert ours[name].stride() == value.stride()
        # in bfloat16 two equal networks drift apart through 50 norms
        assert (ours[name].double() - value.double()).norm() <= 0.15 * value.double().norm(), name


def test_gradients_of_the_whole_walk_are_near_those_of_float32() -> None:
    """A lost path, such as that of the skip, turns the gradients of all blocks before it."""
    network, x = network_of("resnet10"), images(6, 65)
    exact = copy.deepcopy(network)
    loss_of(network, x, walks=True).backward()
    functional.cross_entropy(exact(x), torch.arange(6) % 3).backward()
    for (name, ours), theirs in zip(network.named_parameters(), exact.parameters(), strict=True):
        assert functional.cosine_similarity(ours.grad.flatten(), theirs.grad.flatten(), dim=0) > 0.9, name


def test_without_numba_a_step_is_the_eager_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(norm_module, "_kernels", lambda: None)
    network, x = network_of("resnet10"), images(4, 40)
    eager = copy.deepcopy(network)
    losses = [loss_of(network, x, walks=True), loss_of(eager, x, walks=False)]
    assert losses[0].item() == pytest.approx(losses[1].item(), rel=0.02)
    losses[0].backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_first_statistics_and_last_gradients_are_those_of_float32() -> None:
    network, x = network_of("resnet10"), images(8, 48)
    exact = copy.deepcopy(network)
    loss_of(network, x, walks=True).backward()
    functional.cross_entropy(exact(x), torch.arange(8) % 3).backward()
    assert torch.allclose(network.bn1.running_var, exact.bn1.running_var, rtol=1e-2)
    assert network.fc.weight.grad is not None
    assert exact.fc.weight.grad is not None
    cosine = functional.cosine_similarity(network.fc.weight.grad.flatten(), exact.fc.weight.grad.flatten(), dim=0)
    assert cosine > 0.99


def test_evaluation_is_unchanged() -> None:
    network, x = network_of("resnet10"), images(4, 40)
    loss_of(network, x, walks=True).backward()
    eager = build_network("resnet10", n_classes=3, seed=5)
    eager.load_state_dict(network.state_dict())
    as_channels_last(eager, CPU)
    assert torch.equal(network.eval()(x), eager.eval()(x))


def test_one_tile_with_small_maps_is_the_error_of_torch() -> None:
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        loss_of(network_of("resnet10"), images(1, 32), walks=True)
    assert loss_of(network_of("resnet10"), images(2, 32), walks=True).isfinite()
    assert loss_of(network_of("resnet10"), images(1, 40), walks=True).isfinite()


@pytest.mark.parametrize("threads", [1, 2])
def test_training_repeats(threads: int) -> None:
    torch.set_num_threads(threads)
    runs = []
    for _ in range(2):
        network = network_of("resnet10")
        optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
        for _ in range(2):
            optimizer.zero_grad()
            loss_of(network, images(4, 40), walks=True).backward()
            optimizer.step()
        runs.append(network.state_dict())
    assert all(torch.equal(value, runs[1][name]) for name, value in runs[0].items())


def test_a_training_of_one_cpu_process_walks(monkeypatch: pytest.MonkeyPatch) -> None:
    walked = []
    monkeypatch.setattr(step_module, "forward", lambda network, x: walked.append(network) or network(x))
    network, recipe = network_of("resnet10"), Recipe(tile_px=32, epochs=1, batch_size=4)
    step = TrainStep(network, recipe=recipe, preprocess=Preprocess(32), precision="fp32", seed=0, ranks=Ranks())

    def walks(precision: Precision, *, trains: bool) -> bool:
        step.precision = precision  # as a checkpoint of another machine changes it
        network.train(trains)
        step.scores(torch.zeros(4, 3, 32, 32, dtype=torch.uint8))
        return bool(walked) and walked.pop() is network

    assert not walks("fp32", trains=True)
    assert step.norms == "torch"
    assert walks("bf16", trains=True)
    assert step.norms.startswith("numba ")
    assert not walks("bf16", trains=False)
    step.is_compiled = True
    assert not walks("bf16", trains=True)
    assert not applies(CPU, "bf16", n_ranks=2)
    assert not applies(torch.device("cuda"), "bf16", n_ranks=1)


def test_training_lowers_the_loss() -> None:
    network = network_of("resnet10")
    recipe = Recipe(tile_px=32, epochs=1, batch_size=8)
    step = TrainStep(network, recipe=recipe, preprocess=Preprocess(32), precision="bf16", seed=0, ranks=Ranks())
    labels = np.arange(8) % 3
    noise = np.random.default_rng(0).integers(0, 60, (8, 3, 32, 32)) + 90 * labels[:, None, None, None]
    pixels = torch.from_numpy(noise.astype(np.uint8)).contiguous(memory_format=torch.channels_last)
    losses = [float(step.step(pixels, labels, epoch=0, step=k, steps=8)[0]) for k in range(8)]
    assert losses[-1] < 0.7 * losses[0]


def test_without_gradients_the_statistics_are_the_same() -> None:
    network = network_of("resnet10")
    other = copy.deepcopy(network)
    loss_of(network, images(4, 40), walks=True)
    with torch.no_grad():
        loss_of(other, images(4, 40), walks=True)
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in network.state_dict().items())
