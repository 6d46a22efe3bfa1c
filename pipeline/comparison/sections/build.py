"""The table of contents: the report's sections in their order."""

from pipeline.comparison import label_errors, robustness
from pipeline.comparison.report_data import ReportData
from pipeline.comparison.sections import (
    appendix,
    baselines,
    calibration,
    cross_validation,
    embedding_quality,
    overview,
    per_class,
    significance,
)
from pipeline.markup.document import Document
from pipeline.markup.number_format import listing


def build(material: ReportData) -> Document:
    """Return the report; it reads from top to bottom, from the verdict down to the hashes."""
    sections = [
        overview.compared(material),
        overview.results(material),
        overview.verdict(material),
        significance.section(material),
        cross_validation.random_control(material),
        baselines.section(material),
        significance.per_group(material),
        cross_validation.parts(material),
        per_class.per_class(material),
        per_class.confusions(material),
        calibration.calibration(material),
        calibration.selective(material),
        robustness.section(material),
        embedding_quality.section(material),
        per_class.embedding_map(material),
        per_class.worst_errors(material),
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
