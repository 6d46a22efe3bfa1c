"""Write the section on what the embeddings show beyond the class: the source of a tile, and traces of training."""

from collections.abc import Mapping

from pipeline.comparison.heads_summary import Separability, SourceProbe
from pipeline.comparison.report_data import ReportData
from pipeline.markup.document import Block, EmptySection, Section, Table, Text
from pipeline.markup.number_format import number, percent
from pipeline.names import RunFile


def section(data: ReportData) -> Section | EmptySection:
    """Return how well the source can be predicted, and how much better training tiles are separated."""
    title, summary = "What the embeddings show", data.files.summary
    if summary is None:
        return EmptySection(title, data.files.reason(RunFile.HEADS))
    return Section(
        title, [*source(summary.probe), *separability(summary.separability, is_frozen=data.encoder is not None)]
    )


def source(probe: SourceProbe | str) -> list[Block]:
    """Return how well an SVM on the embeddings predicts the group of a tile."""
    if isinstance(probe, str):
        return [Text(f"Can the source be predicted? n/a: {probe}.")]
    parts = f" (means over {probe.n_probed} of {probe.n_parts} parts)" if probe.n_probed is not None else ""
    headline = (
        f"An SVM predicts the source of a held-out tile from its embedding in {percent(probe.accuracy, 1)} of cases; "
        f"the largest source alone gives {percent(probe.chance, 1)}."
    )
    text = (
        f"Averaged over the sources: {percent(probe.balanced_accuracy, 1)}, by chance "
        f"{percent(probe.chance_balanced, 1)}. Basis: {probe.n_tiles:.0f} validation tiles of {probe.n_groups:.0f} "
        f"groups{parts}. A head can use the source instead of the tissue, which fails on a new source. Limits: "
        "tiles of one source also share tissue, so that this is partly no artefact; the figures do not show how much a "
        "head uses the source."
    )
    return [Text(headline), Text(text)]


def separability(found: Mapping[str, Separability], *, is_frozen: bool = False) -> list[Block]:
    """Return how far the classes are apart on training and on held-out tiles."""
    if not {"train", "val"} <= set(found):
        return []
    of_train = "training tiles" if is_frozen else "tiles that the network was trained on"
    rows = [
        [name, number(found[key].scatter_ratio), number(found[key].accuracy)]
        for key, name in (("train", of_train), ("val", "held-out (validation) tiles"))
    ]
    ratio, held_out = found["train"].scatter_ratio, found["val"].scatter_ratio
    times = f" Training embeddings are {ratio / held_out:.1f} times as separable." if ratio and held_out else ""
    caption = (
        "Scatter between the class means over scatter within the classes (Fisher's criterion). The encoder has seen no "
        "labels: without chance, both rows would be alike."
        if is_frozen
        else "Scatter between the class means over scatter within the classes (Fisher's criterion), and the network's "
        f"own accuracy.{times} A head that is fitted or tuned on training embeddings sees classes further apart than "
        "at test time; --fit-on heldout and crossfit avoid that. The validation rows chose the epoch, which biases "
        "their scores upwards a little."
    )
    return [Table(["embeddings of", "between / within", "accuracy"], rows, caption)]
