"""Find or download torchvision's ImageNet weights in torch's cache."""

import dataclasses
import http.client
import sys
from pathlib import Path

import torch

from pipeline.errors import BadArtifact, BadInput
from pipeline.network.distributed import Ranks
from pipeline.runtime.process import local_rank
from pipeline.storage.atomic import disk_errors, sha256_file


@dataclasses.dataclass(frozen=True)
class PublishedWeights:
    """Weights that torchvision publishes."""

    name: str
    """As torchvision's `get_weight` takes it."""

    url: str


ADDRESS = "https://download.pytorch.org/models"

WEIGHTS = {
    "resnet50": PublishedWeights("ResNet50_Weights.IMAGENET1K_V1", f"{ADDRESS}/resnet50-0676ba61.pth"),
    "resnet18": PublishedWeights("ResNet18_Weights.IMAGENET1K_V1", f"{ADDRESS}/resnet18-f37072fd.pth"),
}
"""V1 for both: the usual "pretrained" weights of papers, trained the same way. Give other weights as a file."""


def imagenet_file(arch: str, ranks: Ranks) -> Path:
    """Return the file of the start weights of an architecture, as `published_file`.

    With several processes, the first one of each machine downloads it, and the others wait.

    Raises:
        KeyError: there are none for this architecture.
        BadInput, BadArtifact, DiskFull: as `published_file`.
    """
    if local_rank() > 0:
        ranks.barrier()
    path = published_file(WEIGHTS[arch].url, "--init imagenet", "--init FILE")
    if local_rank() == 0:
        ranks.barrier()
    return path


def published_file(url: str, option: str, instead: str) -> Path:
    """Return the file of torchvision's weights, whose hash is the published one; it is downloaded if there is none.

    The cache is `hub/checkpoints` in $TORCH_HOME, by default ~/.cache/torch. torchvision's own `get_state_dict` is not
    used: it takes what is in the cache without a check, and unpickles it.

    Args:
        url: where it is published; the end of the file's name begins its SHA-256.
        option: of the command, for messages.
        instead: the option that takes a file, for messages.

    Raises:
        BadInput: not in the cache, and the download failed; names the file and where it belongs.
        BadArtifact: the file in the cache is another one.
        DiskFull: no space for it.
    """
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    prefix = path.stem.rpartition("-")[2]
    if not path.is_file():
        try:
            with disk_errors(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                torch.hub.download_url_to_file(url, str(path), hash_prefix=prefix, progress=sys.stderr.isatty())
        except (OSError, RuntimeError, http.client.HTTPException) as error:  # RuntimeError: another hash
            reason = " ".join(str(error).split())[:160]
            raise BadInput(
                f"{option}: {path} is not there, and {url} could not be downloaded ({reason}): put that file "
                f"there, or give weights by {instead}"
            ) from None
    if not (found := sha256_file(path)).startswith(prefix):
        raise BadArtifact(
            f"{option}: {path} is not the published file (its sha256 begins with {found[: len(prefix)]}): "
            "remove it, so that it is downloaded again"
        )
    return path
