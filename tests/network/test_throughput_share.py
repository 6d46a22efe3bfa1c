"""The device's limit is measured once, and nothing random depends on it."""

import pytest
import torch

from pipeline.network import throughput
from pipeline.network.resnet import build_network
from pipeline.network.throughput import flops_per_tile


def test_the_limit_is_measured_once_and_disturbs_no_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    """P6."""
    measured = []

    def peak(device: torch.device, precision: str) -> float:
        torch.randn(3)
        measured.append((device.type, precision))
        return 1e9

    monkeypatch.setattr(throughput, "peak_flops", peak)
    throughput._measured_peak.cache_clear()
    network = build_network("resnet10", n_classes=2, seed=0)
    torch.manual_seed(3)
    shares = [throughput.share_of_limit(network, 32, precision) for precision in ("fp32", "bf16", "fp32")]
    drawn = torch.randn(2)
    throughput._measured_peak.cache_clear()
    assert measured == [("cpu", "fp32"), ("cpu", "bf16")]
    assert shares == [3 * flops_per_tile(network, 32) / 1e9] * 3
    torch.manual_seed(3)
    assert torch.equal(drawn, torch.randn(2))
