"""Convert a network to a graph of OpenVINO's operations."""

import importlib
from typing import Any

import numpy as np
import torch

from pipeline.network.engines.fold_batchnorm import Embed
from pipeline.network.resnet import Block, ResNet


def graph_of(openvino: Any, embed: Embed, batch: int, side: int) -> Any:
    """Return an OpenVINO model from uint8 tiles (batch, 3, side, side) to the outputs of `embed`.

    The trained network is written operation by operation: torch.export gives the same graph, in 4 s more of processor
    time, most of it for the import of torch's compiler.

    Args:
        openvino: the imported library.
        embed: the network in float32 on the CPU.
        batch: tiles per forward pass.
        side: of the network's input in px.
    """
    if isinstance(embed.network, ResNet):
        return _ResNetGraph().model(openvino, embed, embed.network, [batch, 3, side, side])
    example = torch.zeros(batch, 3, side, side, dtype=torch.uint8)
    with torch.no_grad():
        graph = openvino.convert_model(torch.export.export(embed, (example,)))
    graph.reshape(list(example.shape))
    return graph


class _ResNetGraph:
    """Write the parts of a `ResNet` whose batch normalisations are folded."""

    def __init__(self) -> None:
        self.ops: Any = importlib.import_module("openvino.opset13")

    def model(self, openvino: Any, embed: Embed, network: ResNet, shape: list[int]) -> Any:
        """Return the whole network."""
        ops = self.ops
        pixels = ops.parameter(shape, np.uint8, name="pixels")
        centred = ops.add(ops.convert(pixels, "f32"), self.constant(-embed.shift))
        scaled = ops.divide(centred, self.constant(embed.scale))
        # as torch.export marks it: else OpenVINO multiplies by 1 / scale, which rounds differently
        scaled.get_rt_info()["nonconvertable_divide_0"] = True
        x = ops.relu(self.convolution(scaled, network.conv1))
        x = ops.max_pool(x, strides=[2, 2], dilations=[1, 1], pads_begin=[1, 1], pads_end=[1, 1], kernel_shape=[3, 3])
        x = x.output(0)  # the other one holds the places of the maxima
        for block in network.blocks():
            x = self.block(x, block)
        features = ops.squeeze(ops.reduce_mean(x, [2, 3], keep_dims=True), [2, 3])
        product = ops.matmul(features, self.constant(network.fc.weight), transpose_a=False, transpose_b=True)
        logits = ops.add(product, self.constant(network.fc.bias.view(1, -1)))
        return openvino.Model([features.output(0), logits.output(0)], [pixels], "network")

    def block(self, x: Any, block: Block) -> Any:
        """Return the output of a residual block."""
        found = self.convolution(self.ops.relu(self.convolution(x, block.conv1)), block.conv2)
        if block.bottleneck:
            found = self.convolution(self.ops.relu(found), block.conv3)
        shortcut = x if block.downsample is None else self.convolution(x, block.downsample[0])
        return self.ops.relu(self.ops.add(found, shortcut))

    def convolution(self, x: Any, layer: Any) -> Any:
        """Return the output of a convolution with a bias."""
        strides, pads, dilations = list(layer.stride), list(layer.padding), list(layer.dilation)
        found = self.ops.convolution(x, self.constant(layer.weight), strides, pads, pads, dilations)
        return self.ops.add(found, self.constant(layer.bias.view(1, -1, 1, 1)))

    def constant(self, values: torch.Tensor) -> Any:
        """Return the values as a constant, which OpenVINO copies."""
        return self.ops.constant(values.contiguous().numpy())
