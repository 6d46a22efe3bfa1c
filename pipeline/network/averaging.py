"""A running mean of a network's weights over its steps, which is judged and kept in their place."""

import copy

from torch.optim.swa_utils import get_ema_multi_avg_fn
from torchvision.models.resnet import ResNet

FIRST = 10
"""The mean forgets its beginning: after n steps the decay is at most (1 + n) / (FIRST + n), as in TensorFlow's
`ExponentialMovingAverage`."""


class Average:
    """The exponential moving average of a network (Tarvainen and Valpola 2017), its norms' statistics included.

    Args:
        network: on its device; it is not changed.
        decay: of the mean at each step, below 1.
    """

    def __init__(self, network: ResNet, decay: float) -> None:
        self.decay = decay
        self.network = copy.deepcopy(network).requires_grad_(requires_grad=False)
        pairs = list(zip(self.network.state_dict().values(), network.state_dict().values(), strict=True))
        self.floats = [pair for pair in pairs if pair[0].is_floating_point()]
        self.counts = [pair for pair in pairs if not pair[0].is_floating_point()]

    def update(self, n: int) -> None:
        """Take in the network after its n-th step, counted from 1; nothing waits for the device."""
        decay = min(self.decay, (1 + n) / (FIRST + n))
        get_ema_multi_avg_fn(decay)([mine for mine, _ in self.floats], [theirs for _, theirs in self.floats], None)
        for mine, theirs in self.counts:
            mine.copy_(theirs)
