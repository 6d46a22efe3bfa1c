"""Write the section in which a reader selects test tiles and recomputes the scores."""

from pipeline.comparison.explorer.pack import MOST_ROWS, explorer_payload
from pipeline.comparison.report_data import ReportData
from pipeline.markup.document import Block, Interactive, Section, Text
from pipeline.markup.inline_data import read_scripts

SCRIPTS = ("scores.js", "verdict.js", "recompute.js", "own_view.js", "view.js")


def section(data: ReportData) -> Section:
    """Return the explorer, or why there is none."""
    payload = explorer_payload(data)
    if payload is None:
        block: Block = Text(f"n/a: more than {MOST_ROWS} test rows are too many for a page.")
    else:
        block = Interactive(
            "explorer",
            "report.html lets you select test tiles by class, cell of the confusion matrix, group, confidence or place "
            "on the map. It shows their thumbnails and scores. It recomputes every test score from the rows that the "
            "page carries. This part needs JavaScript; all other parts do not.",
            payload,
            read_scripts("pipeline.comparison.explorer", SCRIPTS),
        )
    return Section("Explore the test tiles", [block])
