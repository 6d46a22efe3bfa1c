"""The network's two halves are torchvision's own forward pass."""

import subprocess
import sys

import pytest
import torch
from torchvision.models import resnet50
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from pipeline.errors import UsageError
from pipeline.network.resnet import ARCHITECTURES, build_network, features, flops_per_tile, logits


def test_training_and_extraction_import_neither_torchvision_nor_the_compiler() -> None:
    """Some operations on the device meta import the compiler and sympy, which take 2 s."""
    modules = "pipeline.network.extraction.multi_process, pipeline.network.model_file, pipeline.network.training.build"
    resnet = "pipeline.network.resnet"
    code = (
        f"import sys, {modules}, {resnet}; {resnet}.flops_per_tile({resnet}.empty_network('resnet10', 2), 32); "
        "print([name for name in ('torchvision', 'torch._dynamo', 'sympy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("zero_init", [False, True])
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_a_network_is_torchvisions_weight_by_weight(arch: str, zero_init: bool) -> None:
    ours = build_network(arch, n_classes=3, seed=4, zero_init=zero_init)
    after = torch.rand(1)
    torch.manual_seed(4)
    block, depths = {"resnet50": (Bottleneck, [3, 4, 6, 3]), "resnet18": (BasicBlock, [2] * 4)}.get(
        arch, (BasicBlock, [1] * 4)
    )
    theirs = ResNet(block, depths, num_classes=3, zero_init_residual=zero_init)
    assert torch.equal(after, torch.rand(1)), "the next random number"
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for name, value in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[name], value), name
    assert [name for name, _ in ours.named_modules()] == [name for name, _ in theirs.named_modules()]
    batch = torch.randn(2, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    for network in (ours, theirs):
        network(batch).square().sum().backward()
    for (name, one), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert torch.equal(one.grad, other.grad), name
    assert torch.equal(ours.bn1.running_mean, theirs.bn1.running_mean)


def test_halves_are_torchvisions_forward_pass() -> None:
    ours = build_network("resnet50", n_classes=5, seed=3).eval()
    theirs = resnet50(num_classes=5)
    theirs.load_state_dict(ours.state_dict())
    theirs.eval()
    seen = {}
    theirs.avgpool.register_forward_hook(lambda module, inputs, output: seen.update(pooled=output))
    batch = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = theirs(batch)
        embedded = features(ours, batch)
        scores = logits(ours, embedded)
    assert embedded.shape == (2, 2048)
    assert torch.equal(embedded, seen["pooled"].flatten(1))
    assert torch.equal(scores, expected)


@pytest.mark.parametrize(("arch", "width"), [("resnet18", 512), ("resnet10", 512)])
def test_small_architectures(arch: str, width: int) -> None:
    network = build_network(arch, n_classes=3, seed=0).eval()
    batch = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        assert features(network, batch).shape == (2, width)
        assert torch.equal(logits(network, features(network, batch)), network(batch))


def test_the_seed_decides_the_weights() -> None:
    one, same, other = (build_network("resnet10", n_classes=2, seed=seed).conv1.weight for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_unknown_architecture() -> None:
    with pytest.raises(UsageError, match="resnet34: known are resnet50"):
        build_network("resnet34", n_classes=2, seed=0)


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
