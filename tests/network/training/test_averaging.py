"""The mean of the weights is the recursion of its source, and never the network itself."""

import pytest
import torch

from pipeline.network.resnet import as_channels_last, build_network
from pipeline.network.training.optimizer import Average


def test_the_mean_is_its_recursion() -> None:
    network = build_network("resnet10", n_classes=2, seed=0)
    average = Average(network, 0.9)
    expected, mean = network.fc.weight.detach().clone(), network.bn1.running_mean
    expected_mean = mean.clone()
    for n in range(1, 100):
        with torch.no_grad():
            network.fc.weight += n
            mean += 1
            network.bn1.num_batches_tracked += 1
        average.update(n)
        decay = min(0.9, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * network.fc.weight.detach()
        expected_mean = decay * expected_mean + (1 - decay) * mean
    torch.testing.assert_close(average.network.fc.weight, expected)
    torch.testing.assert_close(average.network.bn1.running_mean, expected_mean)
    assert average.network.bn1.num_batches_tracked == 99


def test_it_is_a_network_of_its_own_in_the_same_layout() -> None:
    network = build_network("resnet10", n_classes=2, seed=0)
    as_channels_last(network, torch.device("cpu"))
    average = Average(network, 0.9)
    assert not any(value.requires_grad for value in average.network.parameters())
    for mine, theirs in zip(average.network.parameters(), network.parameters(), strict=True):
        assert mine.data_ptr() != theirs.data_ptr()
        assert mine.stride() == theirs.stride()
    before = average.network.fc.weight.clone()
    with torch.no_grad():
        network.fc.weight += 1
    assert torch.equal(average.network.fc.weight, before)


@pytest.mark.parametrize("n", [1, 5])
def test_a_loaded_state_is_what_is_updated(n: int) -> None:
    """A resume loads into the tensors that `update` knows."""
    network = build_network("resnet10", n_classes=2, seed=0)
    average = Average(network, 0.9)
    average.network.load_state_dict(build_network("resnet10", n_classes=2, seed=1).state_dict())
    start = average.network.fc.weight.clone()
    average.update(n)
    decay = min(0.9, (1 + n) / (10 + n))
    torch.testing.assert_close(average.network.fc.weight, decay * start + (1 - decay) * network.fc.weight)
