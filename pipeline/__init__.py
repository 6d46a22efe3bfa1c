"""histoheads: labelled tissue tiles in, an honest comparison of classifier heads out.

tiles -> prepare -> train -> extract -> fit_heads -> report
slide -> tile ------------> extract -> predict

    prepare    images          -> manifest.csv, audit.md          every tile: label, group, split, hash
    train      manifest        -> model.safetensors, history.csv  ResNet-50 from scratch, end to end
    extract    manifest, model -> embeddings.h5                   2048 features and the logits of every tile
    merge      shards' embeddings -> embeddings.h5              of an extraction that machines shared
    tile       slide, model    -> slides/<slide>/grid.csv         which squares of a slide are tiles
    extract --slide            -> slides/<slide>/<slide>.h5       the same for every tile of the grid
    fit_heads  embeddings      -> heads/, predictions.csv         softmax, SVM, XGBoost on the same rows
    report     predictions     -> comparison.csv, .md, report.html
    predict    slide's, heads  -> maps/<slide>/                   class map, regions for QuPath, areas
    export     embeddings      -> files of CLAM, TRIDENT, anndata, or CSV
    verify     the run         -> every file against its recorded hash and schema

`python -m pipeline` runs the stages of tiles and resumes where a run stopped.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
"""Read when torch, scikit-learn or XGBoost is loaded: threads of OpenMP sleep while they wait for one another. Where
other processes (such as those that decode tiles) share the cores, threads that spin instead took 3 to 10 times as
long for the same work. Whoever sets the variable decides."""

__version__ = "0.1.0"
