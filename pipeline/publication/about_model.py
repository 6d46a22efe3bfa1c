"""State what the records hold about the network, its training and the heads.

Nothing is invented: a statement is a value of a record, or follows from it. None: the run's records hold nothing of it.
"""

from pipeline.comparison.sections.overview import FIT_ON
from pipeline.markup.number_format import compact, head_name
from pipeline.names import RunFile
from pipeline.publication.run_facts import RunFacts
from pipeline.publication.statement import (
    COMPARISON,
    PREDICTIONS,
    Statement,
    names_of,
    of_head,
    of_training,
    one_field,
)


def method(run: RunFacts) -> Statement | None:
    """Return the kind of method."""
    arch = of_training(run, "arch")
    if arch is None:
        return None
    how = "trained end to end" if run.encoder is None else "pretrained and frozen"
    text = f"Deep learning: {arch.text}, {how}; heads on its embeddings: {names_of(run.heads)}."
    return Statement(text, (*arch.sources, f"{RunFile.COMPARISON}: head"))


def model(run: RunFacts) -> Statement | None:
    """Return network, input and output."""
    arch, preprocess = of_training(run, "arch"), run.network(RunFile.MODEL_FACTS, "preprocess") or {}
    side = preprocess.get("crop") or preprocess.get("size")
    if arch is None:
        return None
    inputs = f", input {side} x {side} px RGB" if side else ""
    library = " (torchvision)" if run.encoder is None else ""  # an encoder's name begins with it
    text = f"{arch.text}{library}{inputs}; penultimate layer as embedding; heads {names_of(run.heads)}."
    sources = (*arch.sources, *([f"{run.of_network}{RunFile.MODEL_FACTS}: preprocess"] if side else []))
    chosen = [f"{head_name(head)}: {compact(found)}" for head in run.heads if (found := of_head(run, head, "chosen"))]
    if chosen:
        text += f" Chosen: {'; '.join(chosen)}."
        sources = (*sources, f"{RunFile.HEADS}: heads.*.chosen")
    return Statement(text, sources)


def preprocessing(run: RunFacts) -> Statement | None:
    """Return what is done to the pixels of a tile."""
    found = run.network(RunFile.MODEL_FACTS, "preprocess")
    if not found:
        return None
    crop = f", cropped to the central {found['crop']} px" if found.get("crop") else ""
    colours = "stains normalised by source" if found.get("stains") else "no stain normalisation"
    text = (
        f"Resized to {found.get('size')} px ({found.get('interpolation')}){crop}, scaled to 0..1, mean "
        f"{compact(found.get('mean'))} and std {compact(found.get('std'))}; {colours}."
    )
    return Statement(text, (f"{run.of_network}{RunFile.MODEL_FACTS}: preprocess",))


def software(run: RunFacts) -> Statement | None:
    """Return the versions of the libraries."""
    return one_field(run, PREDICTIONS, "versions")


def initialisation(run: RunFacts) -> Statement | None:
    """Return the start weights of the network."""
    if of_training(run, "arch") is None:
        return None
    encoder = run.encoder
    if encoder is not None:
        trained_on = encoder.get("trained_on") or "not recorded"
        text = f"Pretrained weights {encoder.get('weights')}, SHA-256 {encoder.get('weights_sha256')}; trained on: "
        return Statement(f"{text}{trained_on}.", (f"{run.of_network}{RunFile.MODEL_FACTS}: encoder",))
    start, seed = of_training(run, "init"), run.network(RunFile.MODEL_FACTS, "seed")
    text = f"Start weights: {start.text}." if start else f"Random weights from seed {seed}, no pretraining."
    source = f"{run.of_network}{RunFile.MODEL_FACTS}: init, seed"
    return Statement(text, start.sources if start else (source,))


def training(run: RunFacts) -> Statement | None:
    """Return every switch of the recipe."""
    return of_training(run, "recipe")


def selection(run: RunFacts) -> Statement | None:
    """Return how epoch, hyper-parameters and calibration were chosen."""
    kept, rows = of_training(run, "metrics"), run.get(PREDICTIONS, "details", "calibrated_on")
    if kept is None:
        return None
    text = (
        f"The epoch with the highest validation accuracy is kept ({kept.text}). Hyper-parameters of the heads: lowest "
        f"validation negative log-likelihood. Calibration on rows: {rows}."
    )
    fit_on = FIT_ON.get(str(run.get(PREDICTIONS, "details", "fit_on")))
    text += f" SVM and XGBoost are fitted {fit_on}" if fit_on else ""
    return Statement(text, (*kept.sources, f"{PREDICTIONS}: details.calibrated_on, details.fit_on"))


def ensembling(run: RunFacts) -> Statement | None:
    """Return whether several networks or views of a tile are averaged."""
    views, inner = (
        run.network(f"{RunFile.EMBEDDINGS}.json", "details", "views"),
        run.get(PREDICTIONS, "details", "n_inner"),
    )
    if views is None and inner is None:
        return None
    text = f"Test predictions are means over {inner} inner networks" if inner else "No ensemble of networks"
    text += f"; embeddings are means over {views} orientations of a tile." if views and views > 1 else "."
    sources = [f"{PREDICTIONS}: details.n_inner"] if inner is not None else []
    return Statement(
        text, (*sources, *([f"{run.of_network}{RunFile.EMBEDDINGS}.json: details.views"] if views else []))
    )


def output(run: RunFacts) -> Statement | None:
    """Return what a head gives for a tile."""
    methods = [
        f"{head_name(head)} {found}" for head in run.heads if (found := of_head(run, head, "calibration", "method"))
    ]
    if not methods:
        return None
    is_balanced = run.get(PREDICTIONS, "details", "decide") == "balanced"
    rule = "probability, divided by a power of its class's share" if is_balanced else "score"
    text = f"A calibrated probability for each class ({', '.join(methods)}); the class is that of the largest {rule}."
    return Statement(text, (f"{RunFile.HEADS}: heads.*.calibration.method", f"{PREDICTIONS}: details.decide"))


def availability(run: RunFacts) -> Statement | None:
    """Return the identity of code and model."""
    sha, git = run.network(f"{RunFile.MODEL}.json", "sha256"), run.get(COMPARISON, "git")
    version = run.get(COMPARISON, "versions", "histoheads")
    text = f"Code: histoheads {version}, MIT licence" + (f", commit {git['commit']}." if git else ".")
    sources = [f"{COMPARISON}: versions, git"]
    if sha:
        text += f" Model: {run.of_network}model.safetensors, SHA-256 {sha}."
        sources.append(f"{run.of_network}{RunFile.MODEL}.json: sha256")
    return Statement(text, tuple(sources))


def configuration(run: RunFacts) -> Statement | None:
    """Return where every option is recorded."""
    names = [name for name in run.content if run.get(name, "schema") and run.get(name, "options") is not None]
    text = "Every option, version, seed and input is in the records next to the files of the run."
    return Statement(text, tuple(f"{name}: options" for name in names))
