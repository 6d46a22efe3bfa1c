"""Write the last sections of the report: training, costs, hyper-parameters, audit, provenance, credit."""

from collections.abc import Mapping
from typing import Any

from pipeline.comparison.heads_summary import HeadFacts
from pipeline.comparison.report_data import ReportData
from pipeline.comparison.scores import COSTS
from pipeline.errors import BadArtifact
from pipeline.markup.document import Block, Bullets, EmptySection, Figure, Section, Table, Text
from pipeline.markup.number_format import (
    NOT_AVAILABLE,
    compact,
    count,
    head_name,
    number,
    seconds,
    size,
)
from pipeline.names import FILES, RunFile
from pipeline.storage import environment, records

MOST_FINDINGS = 30
SHORT_HASH = 12


def training(data: ReportData) -> Section | EmptySection:
    """Return how the network was trained, or those of all parts of a plan."""
    title, files = "Training", data.files
    if data.encoder is not None:
        return EmptySection(title, "The encoder is frozen: nothing was trained but the heads.")
    if data.protocol is not None:
        facts = files.summary.training if files.summary else None
        if facts is None:
            return EmptySection(title, files.reason(RunFile.HEADS))
        text = f"{len(data.protocol.parts)} networks, one for each part; numbers are means over the main arm's."
        return Section(title, [Text(text), Bullets([f"{name}: {compact(value)}" for name, value in facts.items()])])
    history = files.history
    if history is None and files.model is None:
        return EmptySection(title, f"{files.reason(RunFile.HISTORY)} {files.reason(RunFile.MODEL_FACTS)}")
    blocks: list[Block] = []
    if history is None:
        blocks.append(Text(files.reason(RunFile.HISTORY)))
    else:
        last = history.iloc[-1]
        blocks.append(
            Text(
                f"{count(len(history), 'epoch')}; highest validation accuracy "
                f"{number(history['val_accuracy'].max())}; loss in the last epoch {number(last['train_loss'])} in "
                f"training and {number(last['val_loss'])} in validation."
            )
        )
    if files.model is None:
        blocks.append(Text(files.reason(RunFile.MODEL_FACTS)))
    else:
        names = {"arch": "network", "init": "start weights", "metrics": "kept"}
        items = files.model.facts.items()
        blocks.append(Bullets([f"{names.get(name, name)}: {compact(value)}" for name, value in items]))
    captions = {
        "history": ("Training curves", "Loss and accuracy by epoch."),
        "batch": ("One training batch", "One training batch as the network sees it, after augmentation."),
    }
    for name, (alt, caption) in captions.items():
        if f"figures/{name}.png" in files.figures:
            blocks.append(Figure(f"figures/{name}.png", alt, caption))
    return Section(title, blocks)


def costs(data: ReportData) -> Section | EmptySection:
    """Return the time and storage that each head takes to fit and to use."""
    if not data.files.heads:
        return EmptySection("Costs", data.files.reason(RunFile.HEADS))
    rows, fit = [], {}
    for head in data.predictions.main_heads:
        found = {name: score.value for name in COSTS if (score := data.scores.get((head, "", name))) is not None}
        speed = found.get("predict_tiles_per_second")
        fit[head] = found.get("search_seconds", 0.0) + found.get("fit_seconds", 0.0)
        rows.append(
            [
                head_name(head),
                seconds(found.get("search_seconds")),
                seconds(found.get("fit_seconds")),
                NOT_AVAILABLE if speed is None else f"{speed:.0f}",
                size(found.get("bytes")),
            ]
        )
    caption = (
        "For the head alone, on ready embeddings: the network's pass over a tile comes first for every head and takes "
        "far longer; softmax is the network's own last layer and comes with that pass."
    )
    if data.protocol is not None:
        caption += " Means over the main arm's parts: a plan of n networks takes n times as long."
    blocks: list[Block] = []
    if fit:
        longest = max(fit, key=lambda head: fit[head])
        blocks.append(Text(f"{head_name(longest)} takes longest to search and fit: {seconds(fit[longest])}."))
    return Section("Costs", [*blocks, Table(["head", "search", "last fit", "tiles/s", "size"], rows, caption)])


def hyper_parameters(data: ReportData) -> Section | EmptySection:
    """Return what the search chose for each head."""
    title, entries = "Chosen hyper-parameters", data.files.heads
    if not entries:
        return EmptySection(title, data.files.reason(RunFile.HEADS))
    rows, notes = [], []
    for head in data.predictions.main_heads:
        facts = entries.get(head, HeadFacts())
        best = number(min(facts.val_nll, default=None))
        n_tried = str(facts.n_tried) if data.protocol is None else NOT_AVAILABLE
        rows.append([head_name(head), compact(facts.chosen), facts.calibration or NOT_AVAILABLE, n_tried, best])
        notes += [f"{head_name(head)}: {note}" for note in facts.notes]
    head_row = ["head", "chosen", "calibration", "tried", "best validation NLL"]
    headline = "Chosen on validation rows, then fixed."
    caption = ""
    if data.protocol is not None:
        caption = "All parts: means of numbers, in parentheses the number of parts; the searches are in parts/*/heads/."
    blocks: list[Block] = [Text(headline), Table(head_row, rows, caption, left=3)]
    if notes:
        blocks.append(Bullets(notes))
    return Section(title, blocks)


def audit(data: ReportData) -> Section | EmptySection:
    """Return what the audit of the tiles found."""
    title, findings = "Audit of the tiles", data.files.findings
    if findings is None:
        return EmptySection(title, data.files.reason(RunFile.AUDIT))
    n_errors = sum(finding.severity == "error" for finding in findings)
    headline = (
        f"{count(len(findings), 'finding')}, {count(n_errors, 'error')} among them." if findings else "No findings."
    )
    items = []
    for finding in findings[:MOST_FINDINGS]:
        tiles = finding.tiles
        names = f" ({', '.join(tiles[:3])}{f' and {len(tiles) - 3} more' if len(tiles) > 3 else ''})" if tiles else ""
        items.append(f"{finding.severity}: {finding.what}{names}")
    if len(findings) > MOST_FINDINGS:
        items.append(f"{len(findings) - MOST_FINDINGS} more in audit.md")
    return Section(title, [Text(headline), *([Bullets(items)] if items else [])])


def provenance(data: ReportData) -> Section:
    """Return the files that the numbers come from, by hash, and how they were made."""
    rows, commands = [], []
    of_part = (RunFile.MODEL, RunFile.EMBEDDINGS, *FILES.values())
    unused = {file for head, file in FILES.items() if head not in data.predictions.heads}
    for name, _, stage in records.ARTIFACTS:
        if stage in ("report", "compare") or name in unused or (data.protocol is not None and name in of_part):
            continue  # of a plan, every part has one; predictions.csv.json has the hash of each part's predictions
        path = records.existing_table(data.run / name)
        name = path.name
        try:
            record = records.read_record_alone(path)  # heavy files are not committed, their records are
        except BadArtifact:
            rows.append([name, *[NOT_AVAILABLE] * 4])
            continue
        seed = NOT_AVAILABLE if record["seed"] is None else str(record["seed"])
        rows.append([name, str(record["stage"]), record["sha256"][:SHORT_HASH], seed, _commit(record["git"])])
        commands.append(f"{name} ({record['stage']}): {compact(record['options'])}")
    versions = data.predictions.record["versions"]
    return Section(
        "Provenance",
        [
            Text("Every number traces by hashes to tiles, model and options."),
            Table(["file", "made by", "sha256", "seed", "commit"], rows, left=5),
            Text("Options of each step:"),
            Bullets([*commands, f"comparison.csv (report): {compact(dict(data.options))}"]),
            Text(f"Versions when the heads were fitted: {compact(versions)}."),
            Text(
                f"This report was made by commit {_commit(environment.git_state())}; its command, time and versions "
                "are in comparison.csv.json. python -m pipeline.verify checks every file against its recorded hash."
            ),
        ],
    )


def _commit(git: Mapping[str, Any] | None) -> str:
    return (
        NOT_AVAILABLE if git is None else git["commit"][:SHORT_HASH] + (" with local changes" if git["dirty"] else "")
    )


def credit(data: ReportData) -> Section:
    """Return the credit for the data, and the limits of use."""
    source = data.predictions.details.get("credit")
    blocks: list[Block] = [Text(f"Data: {source}")] if source else []
    return Section("Credit and use", [Text("For research use only: not a medical device, not for diagnosis."), *blocks])
