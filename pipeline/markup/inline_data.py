"""Put data and scripts into a page: JSON that cannot end its element, arrays and pictures as base64."""

import base64
import io
import json
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

import numpy as np
from PIL import Image

JPEG_QUALITY = 70


def encode(values: Any, dtype: str) -> str:
    """Return an array as base64 of its little-endian bytes."""
    return base64.b64encode(np.ascontiguousarray(values, dtype=np.dtype(dtype).newbyteorder("<")).tobytes()).decode()


def jpeg(pixels: np.ndarray) -> str:
    """Return a picture, (h, w, 3) uint8, as base64 of a JPEG file."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=JPEG_QUALITY)
    return base64.b64encode(file.getvalue()).decode()


def inline_json(payload: Any) -> str:
    """Return JSON for a script element: `<` is escaped, so that no name can end the element."""
    return json.dumps(payload, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def read_scripts(package: str, names: Sequence[str]) -> str:
    """Return the script that all pages share, followed by the named scripts of a package."""
    paths = [files("pipeline.markup") / "page.js", *(files(package) / name for name in names)]
    return "\n".join(path.read_text(encoding="utf-8") for path in paths)
