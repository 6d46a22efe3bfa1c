"""Import the libraries of extras, which an installation may lack."""

import importlib
from typing import Any

from pipeline.errors import PipelineError


def import_library(name: str, *, extra: str, needed_for: str, otherwise: str = "") -> Any:
    """Return a module of a library that belongs to an extra.

    Args:
        name: the module.
        extra: the extra of this package.
        needed_for: what needs the library, at the beginning of the message.
        otherwise: what else the user can do, at its end.

    Raises:
        PipelineError: it cannot be imported.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise PipelineError(
            f"{needed_for} needs the library {name.partition('.')[0]}, which cannot be imported ({error}): "
            f"pip install 'histoheads[{extra}]'{otherwise}"
        ) from None
