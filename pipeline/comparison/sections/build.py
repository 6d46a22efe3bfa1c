"""The table of contents: the report's sections in their order."""

from pipeline.comparison import (
    appendix,
    closer_look,
    embeddings,
    floors,
    label_errors,
    opening,
    plan,
    robustness,
    statistics,
    trust,
)
from pipeline.comparison.document import Document
from pipeline.comparison.material import Material
from pipeline.comparison.wording import listing


def build(material: Material) -> Document:
    """Return the report; it reads from top to bottom, from the verdict down to the hashes."""
    sections = [
        opening.compared(material),
        opening.results(material),
        opening.verdict(material),
        statistics.section(material),
        plan.twin(material),
        floors.section(material),
        statistics.per_group(material),
        plan.parts(material),
        closer_look.per_class(material),
        closer_look.confusions(material),
        trust.calibration(material),
        trust.selective(material),
        robustness.section(material),
        embeddings.section(material),
        closer_look.embedding_map(material),
        closer_look.worst_errors(material),
        label_errors.section(material),
        appendix.training(material),
        appendix.costs(material),
        appendix.hyper_parameters(material),
        appendix.audit(material),
        appendix.provenance(material),
        appendix.credit(material),
    ]
    title = f"Comparison of {listing(material.head_names)} on {material.predictions.details.get('dataset', 'n/a')}"
    return Document(title, [section for section in sections if section is not None])
