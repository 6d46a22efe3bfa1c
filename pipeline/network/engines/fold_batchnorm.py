"""Fold batch normalisation into convolutions: the network that engines run, from pixels to features and logits."""

import copy

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from pipeline.network.encoders.frozen import FrozenEncoder, Network, embed
from pipeline.network.model_file import Model
from pipeline.network.resnet import ResNet

PAIRS = (("conv1", "bn1"), ("conv2", "bn2"), ("conv3", "bn3"), ("0", "1"))
"""torchvision's names of a convolution and the normalisation after it; the last pair is that of a shortcut."""


def folded(network: ResNet) -> ResNet:
    """Return a copy of a network in eval mode with batch normalisations folded into the convolutions before them.

    In eval mode both are affine maps, so that the copy computes the same up to rounding.

    Raises:
        ValueError: a normalisation follows no convolution (an architecture that this code does not know).
    """
    copied = copy.deepcopy(network).eval()
    for module in list(copied.modules()):
        for conv_name, norm_name in PAIRS:
            conv, norm = getattr(module, conv_name, None), getattr(module, norm_name, None)
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(module, conv_name, fuse_conv_bn_eval(conv, norm))
                setattr(module, norm_name, nn.Identity())
    if any(isinstance(module, nn.BatchNorm2d) for module in copied.modules()):
        raise ValueError(f"{type(network).__name__}: a batch normalisation that follows no convolution")
    return copied


class Embed(nn.Module):
    """Map uint8 tiles (B, 3, S, S) to features (B, D) and, with a softmax layer, logits (B, K), float32.

    A frozen encoder is not folded: its library's normalisations may hold an activation. In bfloat16 its convolutions
    and linear layers get such weights, and autocast keeps its normalisations in float32.

    Args:
        model: its network is copied, not changed.
        dtype: of the convolutions. They are folded in float32 first: norms folded in bfloat16 would be rounded twice.
            Measured with ResNet-50 on two networks, bfloat16 weights beat autocast over the unfolded network by 1.3 in
            speed, and were closer to float32 on the tiles the network was trained for.
    """

    shift: torch.Tensor
    scale: torch.Tensor

    def __init__(self, model: Model, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        constants = model.preprocess
        # as batches.normalise, with the constants on the network's device; not folded, as padding must stay zero
        self.register_buffer("shift", 255 * torch.tensor(constants.mean).view(1, 3, 1, 1))
        self.register_buffer("scale", 255 * torch.tensor(constants.std).view(1, 3, 1, 1))
        self.network: Network
        self.dtype = dtype
        self.is_frozen = isinstance(model.network, FrozenEncoder)
        if isinstance(model.network, FrozenEncoder):
            self.network = copy.deepcopy(model.network).eval().requires_grad_(requires_grad=False)
            for module in self.network.modules():
                if isinstance(module, nn.Conv2d | nn.Linear):
                    module.to(dtype=dtype)
            return
        network = folded(model.network).requires_grad_(requires_grad=False)
        self.network = network.to(dtype).to(memory_format=torch.channels_last)
        network.fc.float()  # features are pooled in float32, and the head costs nothing

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return features and, with a softmax layer, logits."""
        x = (pixels.float() - self.shift) / self.scale
        if not self.is_frozen or self.dtype == torch.float32:
            return embed(self.network, x.to(self.dtype))
        with torch.autocast(x.device.type, dtype=self.dtype):
            return embed(self.network, x)
