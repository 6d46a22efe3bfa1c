"""Find or download torchvision's ImageNet weights in torch's cache."""

import http.client
import sys
from pathlib import Path

import torch
from torchvision.models import ResNet18_Weights, ResNet50_Weights

from pipeline.errors import BadArtifact, BadInput
from pipeline.network.distributed import Ranks
from pipeline.runtime.process import local_rank
from pipeline.storage.atomic import disk_errors, sha256_file

WEIGHTS: dict[str, ResNet50_Weights | ResNet18_Weights] = {
    "resnet50": ResNet50_Weights.IMAGENET1K_V1,
    "resnet18": ResNet18_Weights.IMAGENET1K_V1,
}
"""V1 for both: the usual "pretrained" weights of papers, trained the same way. Give other weights as a file."""


def imagenet_file(arch: str, ranks: Ranks) -> Path:
    """Return the file of the weights after checking its hash; download it if torch's cache lacks it.

    With several processes, the first one of each machine downloads it, and the others wait.

    The cache is `hub/checkpoints` in $TORCH_HOME, by default ~/.cache/torch. torchvision's `get_state_dict` is not
    used: it unpickles the cached file without checking the hash.

    Raises:
        KeyError: there are no weights for this architecture.
        BadInput: not in the cache, and the download failed; names the file and its place.
        BadArtifact: the file in the cache has another hash.
        DiskFull: no space for it.
    """
    url = str(WEIGHTS[arch].url)  # the file's name ends with the first digits of its SHA-256
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    prefix = path.stem.rpartition("-")[2]
    if local_rank() > 0:
        ranks.barrier()
    if not path.is_file():
        try:
            with disk_errors(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                torch.hub.download_url_to_file(url, str(path), hash_prefix=prefix, progress=sys.stderr.isatty())
        except (OSError, RuntimeError, http.client.HTTPException) as error:  # RuntimeError: another hash
            reason = " ".join(str(error).split())[:160]
            raise BadInput(
                f"--init imagenet: {path} is not there, and {url} could not be downloaded ({reason}): put that file "
                "there, or give weights by --init FILE"
            ) from None
    if not (found := sha256_file(path)).startswith(prefix):
        raise BadArtifact(
            f"--init imagenet: {path} is not the published file (its sha256 begins with {found[: len(prefix)]}): "
            "remove it, so that it is downloaded again"
        )
    if local_rank() == 0:
        ranks.barrier()
    return path
