"""Write and read checkpoint.pt, the state of an unfinished training, as tensors and plain Python."""

import dataclasses
import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch

from pipeline.errors import BadArtifact, StaleInput
from pipeline.storage import atomic, freshness
from pipeline.storage.zip_guard import check_not_packed

SAVE_EVERY_S = 600
"""Time between checkpoints within an epoch: the most work that a kill -9 can lose."""

Weights = dict[str, torch.Tensor]


@dataclasses.dataclass
class Progress:
    """The plain values of a checkpoint."""

    epoch: int = 0
    """Epochs finished."""
    step: int = 0
    """Steps finished in the current epoch."""
    loss_sum: float = 0.0
    """Sum over the tiles seen in the epoch."""
    n_correct: int = 0
    seen: int = 0
    """Tiles seen in the epoch."""
    seconds: float = 0.0
    """Time of its steps, with waiting for tiles."""
    history: list[dict[str, float]] = dataclasses.field(default_factory=list)
    best_epoch: int = 0
    best_accuracy: float = -1.0
    best_loss: float = math.inf

    def rate(self) -> float:
        """Return the tiles per second of the epoch so far: waiting for tiles counts, validation and saves do not."""
        return self.seen / max(self.seconds, 1e-9)

    def finish_epoch(self, *, lr: float, val_loss: float, val_accuracy: float) -> bool:
        """Add the epoch to the history, start the next one, and return whether it was the best so far.

        Args:
            lr: learning rate of its last step.
            val_loss: mean cross-entropy on the validation tiles.
            val_accuracy: share of the validation tiles that were classified correctly.
        """
        self.epoch += 1
        self.history.append(
            {
                "epoch": self.epoch,
                "lr": lr,
                "train_loss": self.loss_sum / self.seen,
                "train_accuracy": self.n_correct / self.seen,
                "val_loss": val_loss,
                "val_accuracy": val_accuracy,
                "seconds": round(self.seconds, 3),
                "images_per_second": round(self.rate(), 3),
            }
        )
        is_best = (val_accuracy, -val_loss) > (self.best_accuracy, -self.best_loss)
        if is_best:
            self.best_epoch, self.best_accuracy, self.best_loss = self.epoch, val_accuracy, val_loss
        self.step, self.loss_sum, self.n_correct, self.seen, self.seconds = 0, 0.0, 0, 0, 0.0
        return is_best


class Stateful(Protocol):
    """A network, an optimizer or a schedule."""

    def state_dict(self) -> Any: ...  # noqa: D102
    def load_state_dict(self, state_dict: Any, /) -> Any: ...  # noqa: D102


class Checkpoint:
    """The checkpoint file of a training.

    Args:
        path: the file.
        identity: plain values that must be the same to continue.
        parts: name -> object with a state: network, optimizer, average.
    """

    def __init__(self, path: Path, *, identity: Mapping[str, Any], parts: Mapping[str, Stateful]) -> None:
        self.path, self.identity, self.parts = path, dict(identity), dict(parts)

    def write(self, progress: Progress, best: Weights) -> None:
        """Write the file atomically, loadable with weights_only.

        Raises:
            DiskFull: no space; the former file stays.
        """
        states = {name: part.state_dict() for name, part in self.parts.items()}
        content = {"identity": self.identity, "progress": dataclasses.asdict(progress), **states, "best": best}
        with atomic.atomic(self.path) as temporary, temporary.open("wb") as file:
            torch.save(content, file)  # with a path, torch hides the reason of a write error

    def read(self) -> tuple[Progress, Weights] | None:
        """Load the states into the parts; return the progress and the best weights, None if there is no file.

        With `--precision auto`, the precision of the file replaces that of the identity.

        Raises:
            StaleInput: it belongs to a training with another manifest or other options; the parts are unchanged.
            BadArtifact: it cannot be read.
        """
        if not self.path.is_file():
            return None
        try:
            check_not_packed(self.path)
            with zipfile.ZipFile(self.path) as members:  # torch.load does not check the checksums
                if damaged := members.testzip():
                    raise zipfile.BadZipFile(f"the checksum of {damaged} is wrong")
            content = torch.load(self.path, map_location="cpu", weights_only=True)
            theirs = content["identity"]
            if theirs.get("options", {}).get("precision") == "auto":
                # another machine may have another default: continue in the precision of the start
                self.identity["precision"] = theirs["precision"]
            changed = freshness.differences(theirs, self.identity)
            if not changed:
                for name, part in self.parts.items():
                    part.load_state_dict(content[name])
                return Progress(**content["progress"]), content["best"]
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001  (torch raises many types)
            reason = " ".join(str(error).split())[:120]
            raise BadArtifact(f"{self.path}: cannot be read ({reason}): pass --restart to train again") from None
        raise StaleInput(
            f"{self.path} belongs to another training, with {changed}: "
            "give the same options, or --restart to train again"
        )
