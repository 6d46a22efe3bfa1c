"""Wrap a pretrained network without its last layer, and embed images by it or by the trained network."""

from typing import TypeAlias

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from pipeline.errors import BadInput
from pipeline.network.resnet import ResNet, features, logits


class FrozenEncoder(nn.Module):
    """Map normalised images (B, 3, S, S) to features (B, D) float32; there is no softmax layer.

    Args:
        body: the network without its last layer; its parameter names are those of its library.
        width: D.
    """

    def __init__(self, body: nn.Module, width: int) -> None:
        super().__init__()
        self.body, self.width = body, width

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the features."""
        found: torch.Tensor = self.body(images)
        return found.float()


Network: TypeAlias = ResNet | FrozenEncoder
"""The trained network with its softmax layer, or a frozen encoder without."""


def embed(network: Network, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Return features (B, D) and, if the network has a softmax layer, logits (B, K) of normalised images."""
    if isinstance(network, FrozenEncoder):
        return (network(images),)
    embedded = features(network, images)
    return embedded, logits(network, embedded)


def measure(encoder: FrozenEncoder, px: int) -> float:
    """Return the floating point operations of one image, two per multiplication with its addition.

    Args:
        encoder: on the CPU, in eval mode.
        px: side of the input.

    Raises:
        BadInput: the encoder does not take such images, or gives no row of `width` features for each.
    """
    from torch.utils.flop_counter import FlopCounterMode  # takes 0.2 s to import

    # the counter knows attention by its matrix products alone
    with torch.inference_mode(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        try:
            shape = tuple(encoder(torch.zeros(1, 3, px, px)).shape)
        except (RuntimeError, ValueError, AssertionError) as error:
            reason = " ".join(str(error).split())[:160]
            raise BadInput(
                f"--encoder: the network takes no images of {px} px ({reason}): give other weights"
            ) from None
    if shape != (1, encoder.width):
        raise BadInput(f"--encoder: the network gives {shape} for one image, (1, {encoder.width}) is needed")
    return float(counter.get_total_flops())
