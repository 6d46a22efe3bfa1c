"""Make small artefacts with their records."""

from pathlib import Path
from typing import Any

from pipeline.storage.atomic import write_text
from pipeline.storage.records import Artifact, write_record

OPTIONS: dict[str, Any] = {"epochs": 3, "rate": 0.1, "name": "Zöllner", "sizes": (1, 2)}


def make(
    path: Path, text: str = "content\n", *, stage: str = "prepare", inputs: tuple[Path, ...] = (), **more: Any
) -> Path:
    """Write a file and its record: seed 5, `OPTIONS`, and more fields of `write_record`."""
    write_text(path, text)
    write_record(Artifact(path, "thing/1.2", stage, OPTIONS, inputs, 5), **more)
    return path
