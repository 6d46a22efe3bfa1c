"""Write the section in which a reader selects test tiles and recomputes the scores."""

from pipeline.comparison.explorer.carried import Carried, carry
from pipeline.comparison.explorer.pack import explorer_payload
from pipeline.comparison.report_data import ReportData
from pipeline.markup.document import Interactive, Section
from pipeline.markup.inline_data import read_scripts

SCRIPTS = ("scores.js", "verdict.js", "recompute.js", "own_view.js", "panels.js", "tiles.js", "view.js")


def section(data: ReportData) -> Section:
    """Return the explorer of all test rows, or of a sample."""
    carried = carry(data)
    payload, scripts = explorer_payload(data, carried), read_scripts("pipeline.comparison.explorer", SCRIPTS)
    return Section("Explore the test tiles", [Interactive("explorer", _text(carried), payload, scripts)])


def _text(carried: Carried) -> str:
    start = (
        "report.html lets you select test tiles by class, cell of the confusion matrix, group, confidence or place on "
        "the map. It shows their thumbnails and "
    )
    end = " This part needs JavaScript; all other parts do not."
    if not carried.is_sample:
        return f"{start}scores. It recomputes every test score from the rows that the page carries.{end}"
    parts = [f"{carried.n_on_map:,} tiles of the map"] if carried.n_on_map else []
    if carried.per_cell:
        parts.append(
            f"at least {carried.per_cell:,} rows of each cell of each head's confusion matrix (all of a smaller cell)"
        )
    return (
        f"{start}predictions. The page carries a fixed sample of {len(carried.rows):,} of the {carried.n_all:,} test "
        f"rows: {', '.join([*parts, 'and the errors with the highest probability first'])}. The numbers in the matrix, "
        f"the bins and the groups count all test rows.{end}"
    )
