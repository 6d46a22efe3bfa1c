"""The second half of the report: how the results came about, what they cost, and what they were made from."""

from typing import Any

from pipeline.comparison.report_data import ReportData
from pipeline.errors import BadArtifact
from pipeline.markup.document import Block, Bullets, Figure, Section, Table, Text
from pipeline.markup.number_format import (
    NOT_AVAILABLE,
    compact,
    count,
    head_name,
    is_number,
    number,
    seconds,
    size,
)
from pipeline.storage import environment, records

MOST_FINDINGS = 30
SHORT_HASH = 12


def training(material: ReportData) -> Section:
    """How the network was trained, or those of all parts of a plan."""
    context = material.context
    if material.protocol is not None:
        facts = context.probes.get("training")
        if facts is None:
            return Section("Trainer", [Text(context.reason("heads/heads.json"))])
        text = f"{len(material.protocol.parts)} networks, one for each part; numbers are means over the main arm's."
        return Section("Trainer", [Text(text), Bullets([f"{name}: {compact(value)}" for name, value in facts.items()])])
    blocks: list[Block] = []
    model = context.model
    if model is None:
        blocks.append(Text(context.reason("model.json")))
    else:
        facts = [
            ("network", "arch"),
            ("recipe", "recipe"),
            ("start weights", "init"),
            ("kept", "metrics"),
            ("seed", "seed"),
        ]
        blocks.append(Bullets([f"{name}: {compact(model[key])}" for name, key in facts if key in model]))
    history = context.history
    if history is None:
        blocks.append(Text(context.reason("history.csv")))
    else:
        last = history.iloc[-1]
        best = history["val_accuracy"].max()
        blocks.append(
            Text(
                f"{count(len(history), 'epoch')}; the highest validation accuracy was {number(best)}; "
                f"in the last epoch the loss was {number(last['train_loss'])} in "
                f"training and {number(last['val_loss'])} in validation."
            )
        )
    for name, alt in (("history", "Trainer curves"), ("batch", "One training batch")):
        file = f"figures/{name}.png"
        captions = {
            "history": "Loss and accuracy by epoch.",
            "batch": "One training batch as the network sees it, after augmentation.",
        }
        if file in context.figures:
            blocks.append(Figure(file, alt, captions[name]))
    return Section("Trainer", blocks)


def costs(material: ReportData) -> Section:
    """What each head takes to fit, to use and to store."""
    heads, scores = material.predictions.main_heads, material.scores
    if not material.context.heads:
        return Section("Costs", [Text(material.context.reason("heads/heads.json"))])

    def cell(head: str, name: str) -> Any:
        score = scores.get((head, "", name))
        return None if score is None else score.value

    rows = []
    for head in heads:
        speed = cell(head, "predict_tiles_per_second")
        rows.append(
            [
                head_name(head),
                seconds(cell(head, "search_seconds")),
                seconds(cell(head, "fit_seconds")),
                f"{speed:.0f}" if is_number(speed) else NOT_AVAILABLE,
                size(cell(head, "bytes")),
            ]
        )
    caption = (
        "Of the head alone, on ready embeddings: the network's pass over a tile comes first for every head and takes "
        "far longer; softmax is the network's own last layer and comes with that pass."
    )
    if material.protocol is not None:
        caption += " Means over the main arm's parts: a plan of n networks takes n times as long."
    return Section("Costs", [Table(["head", "search", "last fit", "tiles/s", "size"], rows, caption)])


def hyper_parameters(material: ReportData) -> Section:
    """What the search chose for each head."""
    entries = material.context.heads
    if not entries:
        return Section("Chosen hyper-parameters", [Text(material.context.reason("heads/heads.json"))])
    rows, notes = [], []
    for head in material.predictions.main_heads:
        entry = entries.get(head, {"chosen": {}, "search": [], "calibration": {}, "notes": []})
        tried = [trial["val_nll"] for trial in entry["search"] if is_number(trial.get("val_nll"))]
        best = number(min(tried)) if tried else NOT_AVAILABLE
        chosen, how = compact(entry["chosen"]), str(entry["calibration"].get("method", NOT_AVAILABLE))
        n_tried = str(len(entry["search"])) if material.protocol is None else NOT_AVAILABLE
        rows.append([head_name(head), chosen, how, n_tried, best])
        notes += [f"{head_name(head)}: {note}" for note in entry["notes"]]
    head_row = ["head", "chosen", "calibration", "tried", "best validation NLL"]
    caption = "Chosen on validation rows, then fixed."
    if material.protocol is not None:
        caption += (
            " Of all parts: means of numbers, in parentheses how many parts; the searches stand in parts/*/heads/."
        )
    blocks: list[Block] = [Table(head_row, rows, caption, left=3)]
    if notes:
        blocks.append(Bullets(notes))
    return Section("Chosen hyper-parameters", blocks)


def audit(material: ReportData) -> Section:
    """What the audit of the tiles found."""
    findings = material.context.findings
    if findings is None:
        return Section("Audit of the tiles", [Text(material.context.reason("audit.json"))])
    items = []
    for finding in findings[:MOST_FINDINGS]:
        tiles = finding["tiles"]
        names = f" ({', '.join(tiles[:3])}{f' and {len(tiles) - 3} more' if len(tiles) > 3 else ''})" if tiles else ""
        items.append(f"{finding['severity']}: {finding['what']}{names}")
    if len(findings) > MOST_FINDINGS:
        items.append(f"{len(findings) - MOST_FINDINGS} more in audit.md")
    return Section("Audit of the tiles", [Bullets(items) if items else Text("Nothing was found.")])


def provenance(material: ReportData) -> Section:
    """The files the figures come from, by hash, and who made them how."""
    rows, commands = [], []
    of_part = ("model.safetensors", "embeddings.h5", "heads/svm.skops", "heads/xgboost.ubj")
    for name, _, _ in records.ARTIFACTS[:-1]:  # all that the report rests on
        if material.protocol is not None and name in of_part:
            continue  # of every part; predictions.csv.json holds the hash of each part's predictions
        path = records.standing(material.run / name)
        name = path.name
        try:
            record = records.read_record_alone(path)  # heavy files are not committed, their records are
        except BadArtifact:
            rows.append([name, *[NOT_AVAILABLE] * 4])
            continue
        seed = NOT_AVAILABLE if record["seed"] is None else str(record["seed"])
        rows.append([name, str(record["stage"]), record["sha256"][:SHORT_HASH], seed, _commit(record["git"])])
        commands.append(f"{name} ({record['stage']}): {compact(record['options'])}")
    versions = material.predictions.record["versions"]
    return Section(
        "Provenance",
        [
            Table(["file", "made by", "sha256", "seed", "commit"], rows, left=5),
            Text("Options of each step:"),
            Bullets([*commands, f"comparison.csv (report): {compact(dict(material.options))}"]),
            Text(f"Versions when the heads were fitted: {compact(versions)}."),
            Text(
                f"This report was made by commit {_commit(environment.git_state())}; its command, time and versions "
                "stand in comparison.csv.json. python -m pipeline.verify checks every file against its recorded hash."
            ),
        ],
    )


def _commit(git: dict[str, Any] | None) -> str:
    return (
        NOT_AVAILABLE if git is None else git["commit"][:SHORT_HASH] + (" with local changes" if git["dirty"] else "")
    )


def credit(material: ReportData) -> Section:
    """Whose data this is, and what the report is not for."""
    source = material.predictions.details.get("credit")
    blocks: list[Block] = [Text(f"Data: {source}")] if source else []
    return Section("Credit and use", [*blocks, Text("For research use only: not a medical device, not for diagnosis.")])
