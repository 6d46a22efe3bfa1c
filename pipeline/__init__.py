"""Compare classifier heads (softmax, SVM, XGBoost) on labelled tissue tiles.

tiles -> prepare -> train -> extract -> fit_heads -> report
slide -> tile ------------> extract -> predict

    prepare    images          -> manifest.csv, audit.md          every tile: label, group, split, hash
    train      manifest        -> model.safetensors, history.csv  ResNet-50 from scratch, end to end
    extract    manifest, model -> embeddings.h5                   2048 features and the logits of every tile
    merge      shards' embeddings -> embeddings.h5                of an extraction that machines shared
    tile       slide, model    -> slides/<slide>/grid.csv         which squares of a slide are tiles
    extract --slide            -> slides/<slide>/<slide>.h5       the same for every tile of the grid
    fit_heads  embeddings      -> heads/, predictions.csv         softmax, SVM, XGBoost on the same rows
    report     predictions     -> comparison.csv, .md, report.html
    predict    slide's, heads  -> maps/<slide>/                   class map, regions for QuPath, areas
    import_embeddings  files of CLAM, TRIDENT, STAMP, AnnData, Parquet, CSV, NumPy -> embeddings.h5
    export     embeddings      -> files of CLAM, TRIDENT, anndata, or CSV
    verify     the run         -> every file against its recorded hash and schema

`python -m pipeline` runs the stages of tiles and resumes an interrupted run. `histoheads` is the same command, and
`histoheads train` is `python -m pipeline.train`.
"""

import os
import sys

__version__ = "0.1.0"

STARTED_AS = ("-m", "histoheads")
"""Base names of `sys.argv[0]` while a command of this package starts: by `python -m`, and by the console script."""


def _leave_current_folder() -> None:
    """Remove the current folder from `sys.path`, so that no file of a data set is imported as a module (P3).

    `python -m` puts the current folder first, and an empty entry of PYTHONPATH means it too. It stays where this
    package is in it, which is a checkout. Python processes that this one starts leave it out by PYTHONSAFEPATH.
    """
    package = os.path.realpath(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    try:
        current = os.path.realpath(os.getcwd())
    except OSError:  # it was removed
        current = ""
    if current == package:
        return
    library = os.path.dirname(os.__file__)  # the user's entries come before the standard library
    end = sys.path.index(library) if library in sys.path else len(sys.path)
    sys.path[:end] = [entry for entry in sys.path[:end] if entry and os.path.realpath(entry) != current]
    os.environ["PYTHONSAFEPATH"] = "1"


if os.path.basename(next(iter(getattr(sys, "argv", [])), "")) in STARTED_AS:  # not by `import` in a user's program
    _leave_current_folder()

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
"""Threads of OpenMP sleep while they wait. Threads that spin took 3 to 10 times as long for the same work where other
processes, such as those that decode tiles, shared the cores. torch, scikit-learn and XGBoost read the variable when
they are loaded. A value that the user set stays."""
