"""How good a network is on tiles that it is not trained on, counted together by all processes."""

import numpy as np
import torch
from torch.nn import functional
from torchvision.models.resnet import ResNet

from pipeline.network.batches import to_device
from pipeline.network.held import Held, Streamed
from pipeline.network.learning import Learner

EVAL_BATCH = 64


@torch.inference_mode()
def validate(learner: Learner, network: ResNet, pixels: Held | Streamed, labels: np.ndarray) -> tuple[float, float]:
    """Return (mean cross-entropy without smoothing, accuracy), every tile seen by one process.

    Args:
        learner: whose input, precision and processes are used.
        network: on its device.
        pixels: of N tiles.
        labels: (N,) class codes.
    """
    network.eval()
    rows = np.array(learner.ranks.share(len(labels)), dtype=np.int64)
    steps = [rows[start : start + EVAL_BATCH] for start in range(0, len(rows), EVAL_BATCH)]
    losses, hits = [], []
    for chosen, batch in zip(steps, pixels.batches(steps), strict=True):
        target = to_device(torch.from_numpy(labels[chosen]), learner.device)
        scores = learner.scores(to_device(batch, learner.device), network)
        losses.append(functional.cross_entropy(scores, target, reduction="sum"))
        hits.append((scores.argmax(1) == target).sum())
    # no steps, where there are fewer tiles than processes
    loss, right = learner.ranks.total([sum(torch.stack(each).tolist()) if each else 0 for each in (losses, hits)])
    return loss / len(labels), right / len(labels)
