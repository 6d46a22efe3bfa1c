"""The limits count the operations of every layer and time one product."""

import pytest
import torch

from pipeline.benchmark import hardware_limits
from pipeline.benchmark.hardware_limits import flops_per_tile, peak_flops
from pipeline.network.resnet import build_network


def test_resnet50_has_the_operations_that_its_layers_have() -> None:
    # ResNet-50 is quoted with 4.09 G multiply-adds at 224 px (torchvision's model card: 4.09 GFLOPS)
    network = build_network("resnet50", n_classes=1000, seed=0)
    assert flops_per_tile(network, 224) == pytest.approx(2 * 4.09e9, rel=0.01)


def test_operations_are_those_of_every_convolution_and_the_last_layer() -> None:
    network = build_network("resnet10", n_classes=5, seed=0)
    sizes: dict[torch.nn.Module, int] = {}
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(lambda layer, _, out: sizes.update({layer: out.shape[-2] * out.shape[-1]}))
    network.eval()(torch.zeros(1, 3, 48, 48))
    by_hand = sum(2 * layer.weight.numel() * n for layer, n in sizes.items()) + 2 * 512 * 5
    assert flops_per_tile(network, 48) == by_hand


def test_counting_leaves_the_network_alone() -> None:
    network = build_network("resnet10", n_classes=5, seed=0)
    flops_per_tile(network, 32)
    assert network.training
    assert all(parameter.device.type == "cpu" for parameter in network.parameters())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_limit_is_that_of_the_timed_product(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(hardware_limits.SIDE, "cpu", 64)
    clock = iter(float(i) for i in range(10_000))  # every reading of the clock is one second later
    monkeypatch.setattr(hardware_limits.time, "perf_counter", lambda: next(clock))
    assert peak_flops(torch.device("cpu"), precision, seconds=20.0) == 2 * 64**3  # type: ignore[arg-type]
