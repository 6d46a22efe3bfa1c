"""The files of a bench: table, page, figure, and a record of what they were made with."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline.benchmark import measurement, report_page, scaling
from pipeline.benchmark.config import BenchConfig
from pipeline.benchmark.figures import draw_growth, draw_rates, levels, rate_curves, ratios
from pipeline.benchmark.hardware import described
from pipeline.benchmark.targets import judge
from pipeline.storage import atomic, environment, records

BENCH, GROWTH = "bench/1.0", "growth/1.0"


def write_bench(
    out: Path,
    name: str,
    table: Sequence[measurement.Measurement],
    *,
    setting: BenchConfig,
    given: Mapping[str, Any],
    remarks: Sequence[str],
) -> str:
    """Write `<name>.csv`, .md, .png (if there is something to draw) and the record; return the page.

    Args:
        out: folder.
        name: of the machine, and of what was left out.
        table: at least one row.
        setting: how it was measured.
        given: the options, as plain values.
        remarks: what a reader must know.
    """
    csv, page, figure = (out / f"{name}.{suffix}" for suffix in ("csv", "md", "png"))
    verdicts = judge(table, is_gpu=setting.device.type == "cuda")
    curves, bars = rate_curves(table), ratios(table)
    is_drawn = bool(curves or bars)
    if is_drawn:
        draw_rates(figure, curves, levels=levels(table), ratios=bars)
    else:
        figure.unlink(missing_ok=True)  # of an earlier bench
    text = report_page.to_page(
        f"Bench: {name}",
        table,
        verdicts=verdicts,
        facts=facts(setting, given),
        remarks=remarks,
        figure=figure.name if is_drawn else None,
    )
    atomic.write_text(csv, measurement.to_csv(table))
    atomic.write_text(page, text)
    told = [{"target": verdict.target, "is_met": verdict.is_met, "found": verdict.found} for verdict in verdicts]
    details = {"targets": told, "remarks": list(remarks)}
    outputs = [page, figure] if is_drawn else [page]
    keep(csv, outputs, schema=BENCH, setting=setting, given=given, details=details)
    return text


def write_growth(out: Path, name: str, found: scaling.Costs, *, setting: BenchConfig, given: Mapping[str, Any]) -> str:
    """Write `<name>.csv`, .md, .png and the record; return the page.

    Args:
        out: folder.
        name: of the machine.
        found: costs of every stage at one size or more.
        setting: how it was measured.
        given: the options, as plain values.
    """
    csv, page, figure = (out / f"{name}.{suffix}" for suffix in ("csv", "md", "png"))
    slopes = {stage: scaling.last_slope(sizes, "seconds") for stage, sizes in found.items()}
    draw_growth(figure, found, slopes=slopes)
    text = scaling.to_page(f"Growth: {name}", found, facts=facts(setting, given), figure=figure.name)
    atomic.write_text(csv, scaling.to_csv(found))
    atomic.write_text(page, text)
    keep(csv, [page, figure], schema=GROWTH, setting=setting, given=given, details={"slopes": slopes})
    return text


def keep(
    csv: Path,
    outputs: Sequence[Path],
    *,
    schema: str,
    setting: BenchConfig,
    given: Mapping[str, Any],
    details: Mapping[str, Any],
) -> None:
    """Write the record of a table and its companions."""
    records.write_record(
        records.Artifact(csv, schema, "bench", given, seed=setting.seed),
        outputs=outputs,
        details=details,
        device=str(setting.device),
    )


def facts(setting: BenchConfig, given: Mapping[str, Any]) -> list[str]:
    """Return what readers need to compare or repeat the figures."""
    state = environment.git_state()
    commit = "not in a checkout" if state is None else state["commit"] + (", changed since" if state["dirty"] else "")
    versions = ", ".join(f"{name} {version}" for name, version in environment.versions().items() if version)
    when = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return [
        *described(setting.device, setting.threads),
        f"Versions: {versions}",
        f"Commit: {commit}",
        f"Date: {when}",
        f"Command: {command(given)}",
    ]


def command(given: Mapping[str, Any]) -> str:
    """Return the command line that asks for the same, without where the files lie."""
    words = ["python -m pipeline.bench"]
    for name, value in given.items():
        if value not in (None, "", False):
            shown = "FILE" if name == "model" else "" if value is True else value
            words.append(f"--{name.replace('_', '-')} {shown}".rstrip())
    return " ".join(words)
