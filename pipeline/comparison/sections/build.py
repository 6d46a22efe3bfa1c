"""Build the report from its sections, in their order."""

import dataclasses

from pipeline.comparison import report_figures
from pipeline.comparison.report_data import ReportData
from pipeline.comparison.sections import (
    appendix,
    baselines,
    calibration,
    cross_validation,
    embedding_quality,
    explore,
    group_level,
    label_errors,
    overview,
    per_class,
    robustness,
    significance,
)
from pipeline.markup.document import Block, Bullets, Document, EmptySection, Section, Text
from pipeline.markup.number_format import listing

FIGURES = (*report_figures.FIGURES, robustness.FIGURE, label_errors.FIGURE, group_level.FIGURE)
"""Files in the folder of figures that the report may draw."""


FOLDED = (
    significance.section,
    cross_validation.parts,
    embedding_quality.section,
    appendix.training,
    appendix.costs,
    appendix.hyper_parameters,
    appendix.audit,
    appendix.provenance,
)
"""Sections that a browser shows when the reader opens them."""

SECTIONS = (
    overview.result,
    explore.section,
    overview.results,
    overview.verdict,
    baselines.section,
    overview.compared,
    cross_validation.random_control,
    significance.per_group,
    group_level.section,
    per_class.per_class,
    per_class.confusions,
    calibration.calibration,
    calibration.selective,
    robustness.section,
    per_class.embedding_map,
    per_class.worst_errors,
    label_errors.section,
    *FOLDED,
    appendix.credit,
)
"""Functions that write the sections, in their order."""


def build(data: ReportData) -> Document:
    """Return the report, from the recommendation down to the hashes. Sections without data are one list at its end."""
    sections: list[Section] = []
    empty: list[str] = []
    for write in SECTIONS:
        section = write(data)
        if isinstance(section, EmptySection):
            empty.append(f"{section.title}: {section.reason}")
        elif section is not None:
            sections.append(dataclasses.replace(section, folded=write in FOLDED))
    if empty:
        lines: list[Block] = [Text("The run has no data for these parts."), Bullets(empty)]
        sections.append(Section("Not in this report", lines, folded=True))
    title = f"Comparison of {listing(data.head_names)} on {data.predictions.details.get('dataset', 'n/a')}"
    return Document(title, sections)
