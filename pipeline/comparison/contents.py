"""The table of contents: the report's sections in their order."""

from pipeline.comparison import appendix, closer_look, opening
from pipeline.comparison.document import Document
from pipeline.comparison.material import Material
from pipeline.comparison.wording import listing


def build(material: Material) -> Document:
    """Return the report; it reads from top to bottom, from the verdict down to the hashes."""
    return Document(
        f"Comparison of {listing(material.head_names)} on {material.predictions.details.get('dataset', 'n/a')}",
        [
            opening.compared(material),
            opening.results(material),
            opening.verdict(material),
            closer_look.per_class(material),
            closer_look.confusions(material),
            closer_look.calibration(material),
            closer_look.embedding_map(material),
            closer_look.worst_errors(material),
            appendix.training(material),
            appendix.costs(material),
            appendix.hyper_parameters(material),
            appendix.audit(material),
            appendix.provenance(material),
            appendix.credit(material),
        ],
    )
