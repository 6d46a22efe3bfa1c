"""Compare the heads: scores with intervals, a verdict in plain words, figures.

Reads predictions.csv and the other files of the run (heads, history, audit, tiles, embeddings); never refits. Writes
comparison.csv, comparison.md, figures and the one-file report.html into the run folder, and with --checklist
checklist-<name>.md.

    python -m pipeline.report --run reports/mine
"""

import dataclasses
import importlib.util
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pipeline.cli.command import Command
from pipeline.cli.options import Common, check, plain
from pipeline.errors import EXIT_OK, StaleInput
from pipeline.names import RunFile
from pipeline.runtime.console import log
from pipeline.storage import atomic, freshness, records

if TYPE_CHECKING:
    from pipeline.comparison.group_level import GroupLevel
    from pipeline.comparison.predictions import Predictions
    from pipeline.comparison.report_data import ReportData
    from pipeline.publication.checklist import Name
    from pipeline.storage.protocol import Protocol


@dataclasses.dataclass(frozen=True)
class ReportOptions:
    """How heads are compared, and what the report shows."""

    draws: int = 2000
    """Resamples of the bootstrap."""

    level: float = 0.95
    """Coverage of the intervals; a difference is tested at 1 - level."""

    rope: float = 0.01
    """Differences of macro-F1 up to this size do not matter (region of practical equivalence)."""

    map: Literal["tsne", "pca", "none"] = "tsne"
    """Map of the embeddings: t-SNE, principal components, or none."""

    gallery: int = 12
    """Worst errors that are shown; 0: no picture in the report shows a tile, so that the report can be shared."""

    group_labels: Path | None = None
    """CSV file group,label with a label for each patient or slide: for reports on whole groups where their tiles have
    several classes. Default: the label of the tiles, where a group has one only."""

    sensitivity: float | None = None
    """Report sensitivity and specificity of whole groups at a threshold. Validation groups choose the highest one that
    finds this share of the positive groups, e.g. 0.95."""

    positive: str | None = None
    """Class of the positive groups, for --sensitivity. Default: the second of two."""

    open: bool = False
    """Open report.html in the web browser."""

    checklist: tuple[Literal["claim", "tripod-ai", "stard-ai"], ...] = ()
    """Reporting checklists to fill from the records of the run: claim, tripod-ai, stard-ai."""

    def __post_init__(self) -> None:
        """Check ranges."""
        check(100 <= self.draws <= 100_000, f"--draws {self.draws}: 100 to 100000")
        check(0.5 <= self.level < 1, f"--level {self.level}: a coverage from 0.5 up to, not including, 1")
        check(0 <= self.rope < 1, f"--rope {self.rope}: a difference from 0 up to, not including, 1")
        check(0 <= self.gallery <= 60, f"--gallery {self.gallery}: 0 to 60 tiles")
        is_share = self.sensitivity is None or 0 < self.sensitivity <= 1
        check(is_share, f"--sensitivity {self.sensitivity}: a share above 0, at most 1")
        check(self.positive is None or self.sensitivity is not None, "--positive: only with --sensitivity")


def run(common: Common, options: ReportOptions) -> int:
    """Write the comparison of a run and the checklists, unless they are current; return the exit code."""
    from pipeline.storage.protocol import read_protocol

    return write_report(common, read_protocol(common.run), options)


def write_report(common: Common, protocol: "Protocol | None", options: ReportOptions) -> int:
    """Write the comparison and the checklists of a run with this plan, open it if wanted; return the exit code."""
    write_if_stale(common, protocol, options)
    for name in options.checklist:
        write_checklist(common, name)
    page = (common.run / "report.html").resolve()
    if options.open and not webbrowser.open(page.as_uri()):
        log.warning(f"report: no web browser was found: open {page}")
    return EXIT_OK


def write_checklist(common: Common, name: "Name") -> None:
    """Fill a reporting checklist from the records of a run that has a comparison."""
    from pipeline.publication.checklist import SCHEMA, fill, read_items, to_page
    from pipeline.publication.run_facts import read_facts

    facts, path = read_facts(common.run, force=common.force), common.run / f"checklist-{name}.md"
    artifact = records.Artifact(path, SCHEMA, "report", {"checklist": name}, facts.files)
    if freshness.reusable_record(artifact, restart=common.restart) is not None:
        return
    answers = fill(facts, read_items(name))
    atomic.write_text(path, to_page(name, answers))
    records.write_record(artifact, details={answer.item.number: answer.status for answer in answers})
    log.info(f"report: {path}")


def write_if_stale(common: Common, protocol: "Protocol | None", options: ReportOptions) -> None:
    """Write the comparison of a run with this plan unless it is current."""
    from pipeline.comparison import label_errors
    from pipeline.comparison.group_level import GroupRequest, group_level, groups_csv, read_group_labels
    from pipeline.comparison.per_group import per_group_csv
    from pipeline.comparison.read import read_predictions
    from pipeline.comparison.run_files import optional_files
    from pipeline.comparison.scores import SCHEMA, to_csv
    from pipeline.comparison.sections.build import FIGURES, build
    from pipeline.markup.document import to_html, to_markdown

    folder = common.run
    source, table = records.existing_table(folder / RunFile.PREDICTIONS), folder / RunFile.COMPARISON
    predictions = read_predictions(source, force=common.force)
    files = optional_files(folder, pixels=options.gallery > 0, embeddings=options.map != "none")
    inputs = [source, *files]
    if not common.force:
        for path in inputs:
            if path.suffix in (".csv", ".parquet") and records.record_path(path).is_file():
                freshness.check_inputs_unchanged(path, records.read_record(path))
    labels = None
    if options.group_labels is not None:
        labels = read_group_labels(options.group_labels)
        inputs.append(options.group_labels)
    extras = [name for name in ("cleanlab", "mapie") if importlib.util.find_spec(name) is not None]
    chosen = _content_options(options) | {"extras": extras}  # an extra that was installed since adds to the report
    artifact = records.Artifact(table, SCHEMA, "report", chosen, inputs, common.seed)
    if freshness.reusable_record(artifact, restart=common.restart) is not None:
        return

    groups = group_level(predictions, GroupRequest(labels, options.sensitivity, options.positive or ""))
    data = collect(common, options, predictions, files, protocol=protocol, groups=groups)
    document = build(data)
    atomic.write_text(table, to_csv(list(data.scores.values())))
    outputs = {
        "comparison.md": to_markdown(document),
        "report.html": to_html(document, folder=folder),
        RunFile.PER_GROUP: per_group_csv(predictions),
        RunFile.GROUPS: groups_csv(groups),
        RunFile.LABEL_ERRORS: label_errors.to_csv(data.suspects),
    }
    for name, text in outputs.items():
        if text is not None:
            atomic.write_text(folder / name, text)
        else:
            (folder / name).unlink(missing_ok=True)  # an earlier report wrote it
    drawn = {folder / figure.file for figure in document.figures} - set(files)
    for name in FIGURES:
        if (old := folder / "figures" / name) not in drawn:
            old.unlink(missing_ok=True)  # an earlier report with other options drew it
    verdict = data.verdict
    records.write_record(
        artifact,
        outputs=[*(folder / name for name, text in outputs.items() if text is not None), *sorted(drawn)],
        details={"intervals": data.resampling.unit, "n_draws": options.draws, "level": options.level}
        | {"protocol": predictions.protocol, "left_out": dict(data.files.missing)}
        | ({} if groups is None else {"groups": dataclasses.asdict(groups.rule)})
        | {"verdict": verdict.code, "recommended": verdict.recommended, "best": verdict.best},
    )
    log.info(f"report: {folder / 'comparison.md'} and {folder / 'report.html'}")
    log.info(f"report: {verdict.action}")


def _content_options(options: ReportOptions) -> dict[str, object]:
    """Return the options that decide the content of the comparison, as plain values."""
    return {name: value for name, value in plain(options).items() if name not in ("checklist", "open", "group_labels")}


def collect(
    common: Common,
    options: ReportOptions,
    predictions: "Predictions",
    files: list[Path],
    *,
    protocol: "Protocol | None",
    groups: "GroupLevel | None",
) -> "ReportData":
    """Score, judge and draw everything that the sections are written from."""
    from pipeline.comparison.label_errors import find_suspects
    from pipeline.comparison.recommendation import judge
    from pipeline.comparison.report_data import ReportData
    from pipeline.comparison.report_figures import (
        draw_embedding_map,
        draw_errors,
        draw_main_scores,
        draw_scores,
        worst_errors,
    )
    from pipeline.comparison.robustness import read_corrupted
    from pipeline.comparison.run_files import read_run_files
    from pipeline.comparison.scores import by_key, choose_resampling, score_heads

    folder, figures = common.run, common.run / "figures"
    run_files = read_run_files(folder, files)
    resampling = choose_resampling(predictions, n_draws=options.draws, seed=common.seed, level=options.level)
    costs = {head: facts.costs for head, facts in run_files.heads.items()}
    scores = by_key(score_heads(predictions, resampling, costs))
    n_train = predictions.details.get("n_train")
    verdict = judge(predictions, scores, resampling, rope=options.rope, n_train=n_train)
    robustness = folder / RunFile.ROBUSTNESS
    corrupted = read_corrupted(robustness, predictions, force=common.force) if robustness in files else None
    log.info("report: drawing figures")
    worst = worst_errors(predictions, options.gallery)
    return ReportData(
        run=folder,
        predictions=predictions,
        files=run_files,
        resampling=resampling,
        scores=scores,
        verdict=verdict,
        groups=groups,
        protocol=protocol,
        random_control=read_random_control(common, predictions, files),
        corrupted=corrupted,
        suspects=find_suspects(predictions),
        figures=draw_scores(figures, predictions) | {"scores": draw_main_scores(figures, predictions, scores)},
        map="Not drawn (--map none)."
        if options.map == "none"
        else draw_embedding_map(figures, run_files, predictions, method=options.map, seed=common.seed),
        worst=worst,
        gallery="Not drawn (--gallery 0)."
        if options.gallery == 0
        else draw_errors(figures, run_files, predictions, worst),
        n_gallery=options.gallery,
        options=_content_options(options) | {"seed": common.seed},
    )


def read_random_control(common: Common, predictions: "Predictions", files: list[Path]) -> "Predictions | None":
    """Return the predictions of the plan's random-split control; None without one.

    Raises:
        StaleInput: they belong to another plan.
    """
    from pipeline.comparison.read import read_predictions

    path = records.existing_table(common.run / RunFile.RANDOM_CONTROL)
    if path not in files:
        return None
    control = read_predictions(path, force=common.force)
    if control.details.get("protocol_sha256") != predictions.details.get("protocol_sha256"):
        raise StaleInput(f"{path} belongs to another plan than predictions.csv: run fit_heads, or remove it")
    return control


main = Command("pipeline.report", __doc__, ReportOptions, run)
"""Entry point of `python -m pipeline.report`."""


if __name__ == "__main__":
    raise SystemExit(main())
