"""The report's section on what the embeddings know beside the class."""

from pipeline.comparison.report_data import ReportData
from pipeline.markup.document import Block, Section, Table, Text
from pipeline.markup.number_format import is_number, number, percent


def section(material: ReportData) -> Section:
    """Which source is this, and how much more separable are the tiles that the network was trained on."""
    probes = material.context.probes
    if not probes:
        return Section("What the embeddings know", [Text(material.context.reason("heads/heads.json"))])
    blocks: list[Block] = [*source(probes.get("source_probe", {})), *separability(probes.get("separability", {}))]
    return Section("What the embeddings know", blocks)


def source(probe: dict[str, object]) -> list[Block]:
    """Return what an SVM on the embeddings says of the group."""
    if not is_number(probe.get("accuracy")):
        return [Text(f"Which source is this? n/a: {probe.get('reason', 'not asked')}.")]
    of_parts = ""
    if is_number(probe.get("n_asked")):
        of_parts = f" (means over the {probe['n_asked']} of {probe['n_parts']} parts where it could be asked)"
    text = (
        f"Which source is this? An SVM names the group of a held-out tile from its embedding in "
        f"{percent(probe['accuracy'], 1)} of cases, where naming the largest group is right in "
        f"{percent(probe['chance'], 1)}; averaged over the groups {percent(probe['balanced_accuracy'], 1)} against "
        f"{percent(probe['chance_balanced'], 1)} by chance. It rests on {probe['n_tiles']:.0f} validation tiles of "
        f"{probe['n_groups']:.0f} groups{of_parts}. What the embeddings know of the source, "
        "a head can use in place of the tissue; a new source does not offer that. Limits: tiles of one source also "
        "share tissue, so that some of this is no artefact; it says nothing of how much a head uses it."
    )
    return [Text(text)]


def separability(found: dict[str, dict[str, object]]) -> list[Block]:
    """Return how the classes lie on training and on held-out tiles."""
    if not {"train", "val"} <= set(found):
        return []
    rows = [
        [name, number(found[key].get("scatter_ratio")), number(found[key].get("accuracy"))]
        for key, name in (("train", "tiles the network was trained on"), ("val", "held-out (validation) tiles"))
    ]
    ratio, held = found["train"].get("scatter_ratio"), found["val"].get("scatter_ratio")
    times = ""
    if isinstance(ratio, float) and isinstance(held, float) and held > 0:
        times = f" Training embeddings are {ratio / held:.1f} times as separable."
    caption = (
        "Scatter between the class means over scatter within the classes (Fisher's criterion), and the network's own "
        f"accuracy.{times} A head that is fitted or tuned on training embeddings sees classes lie further apart than "
        "they will at test time; --fit-on heldout and crossfit avoid that. The validation rows chose the epoch, which "
        "flatters them a little."
    )
    return [Table(["embeddings of", "between / within", "accuracy"], rows, caption)]
