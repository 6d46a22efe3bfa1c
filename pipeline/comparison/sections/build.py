"""Build the report from its sections, in their order."""

from pipeline.comparison import report_figures
from pipeline.comparison.report_data import ReportData
from pipeline.comparison.sections import (
    appendix,
    baselines,
    calibration,
    cross_validation,
    embedding_quality,
    explore,
    label_errors,
    overview,
    per_class,
    robustness,
    significance,
)
from pipeline.markup.document import Document
from pipeline.markup.number_format import listing

FIGURES = (*report_figures.FIGURES, robustness.FIGURE, label_errors.FIGURE)
"""Files in the folder of figures that the report may draw."""


def build(data: ReportData) -> Document:
    """Return the report, from the verdict down to the hashes."""
    sections = [
        overview.compared(data),
        overview.results(data),
        overview.verdict(data),
        explore.section(data),
        significance.section(data),
        cross_validation.random_control(data),
        baselines.section(data),
        significance.per_group(data),
        cross_validation.parts(data),
        per_class.per_class(data),
        per_class.confusions(data),
        calibration.calibration(data),
        calibration.selective(data),
        robustness.section(data),
        embedding_quality.section(data),
        per_class.embedding_map(data),
        per_class.worst_errors(data),
        label_errors.section(data),
        appendix.training(data),
        appendix.costs(data),
        appendix.hyper_parameters(data),
        appendix.audit(data),
        appendix.provenance(data),
        appendix.credit(data),
    ]
    title = f"Comparison of {listing(data.head_names)} on {data.predictions.details.get('dataset', 'n/a')}"
    return Document(title, [section for section in sections if section is not None])
