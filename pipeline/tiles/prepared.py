"""Split and audit a surveyed data set, and write its manifests and the audit."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.errors import BadInput
from pipeline.names import SPLITS, RunFile
from pipeline.runtime.console import log
from pipeline.storage import atomic
from pipeline.tiles.audit.checks import audit, audit_markdown
from pipeline.tiles.audit.finding import Finding
from pipeline.tiles.audit.measure import Measurements
from pipeline.tiles.datasets.sources import TileSet
from pipeline.tiles.manifest import write_manifest
from pipeline.tiles.splits.cross_validation import SplitOptions, SplitPlan, make_plan
from pipeline.tiles.splits.write import remove_other_plans, training_colours, write_parts


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A data set whose tiles are checked and split."""

    tiles: TileSet
    root: Path
    """Folder that the tiles' paths are relative to."""

    table: pd.DataFrame
    """Manifest columns, index 0..N-1; with folds the split of every tile is test, as a part without it tests it."""

    measurements: Measurements
    plan: SplitPlan
    findings: list[Finding]
    """Worst first."""

    @property
    def bad_paths(self) -> list[str]:
        """Paths of the unreadable tiles, which are left out."""
        return list(self.table["path"][self.table["problem"] != ""])

    @property
    def split_text(self) -> str:
        """Number of tiles in each split, or the number of parts."""
        if self.plan.is_single:
            counts = self.table["split"].value_counts()
            return ", ".join(f"{counts.get(name, 0)} {name}" for name in SPLITS)
        n_seeds = len({part.seed for part in self.plan.parts})
        return f"{len(self.plan.parts)} parts of {self.plan.n_folds} fold(s) and {n_seeds} seed(s)"

    def log_findings(self, *, allow_leakage: bool) -> None:
        """Log the findings.

        Raises:
            BadInput: copies of a tile can be on two sides of a split, and that is not allowed.
        """
        for finding in self.findings:
            if finding.severity == "note":
                log.info(f"prepare: note: {finding.line}")
            else:
                log.warning(f"prepare: {finding.line}")
        if self.findings and self.findings[0].severity == "error" and not allow_leakage:
            raise BadInput(f"{self.findings[0].line}: remove all copies but one, or pass --allow-leakage")

    def write_audit(self, run: Path) -> list[Path]:
        """Write audit.json and audit.md into a run folder; return their paths."""
        counts = {"n_tiles": len(self.table), "n_unreadable": len(self.bad_paths)}
        facts = {"findings": list(map(dataclasses.asdict, self.findings)), **counts}
        about = {"name": self.tiles.name, "protocol": self.plan.protocol}
        page = audit_markdown(self.table, self.findings, measurements=self.measurements, **about)
        atomic.write_text(run / RunFile.AUDIT, atomic.to_json(facts))
        atomic.write_text(run / "audit.md", page)
        return [run / RunFile.AUDIT, run / "audit.md"]

    def write_manifests(
        self,
        run: Path,
        *,
        origin: str,
        options: Mapping[str, Any],
        outputs: list[Path],
        seed: int,
        inputs: Sequence[Path],
    ) -> None:
        """Write the manifest of a run and of the parts of its plan, and remove the plan that it does not have.

        `origin` is where the tiles come from: the name of a data set, files, or annotations.
        """
        table, plan, root, quality = self.table, self.plan, self.root, self.measurements.quality
        details = {"dataset": self.tiles.name, "origin": origin, "protocol": plan.protocol, **self.tiles.facts}
        remove_other_plans(run, plan)
        if plan.is_single:
            details["source_colours"] = training_colours(table, quality)
        else:
            protocol = write_parts(run, table, plan, root=root, options=options, details=details, quality=quality)
            outputs = [*outputs, protocol]
        path = run / RunFile.MANIFEST
        write_manifest(
            path, table, root=root, options=options, details=details, outputs=outputs, seed=seed, inputs=inputs
        )


def split_and_audit(
    tiles: TileSet, table: pd.DataFrame, measurements: Measurements, options: SplitOptions, *, root: Path, where: str
) -> Prepared:
    """Write the split of the readable tiles into the table of `survey_tiles`, and return them with all findings.

    `where` is the user's word for the data, for messages; raises as `make_plan`.
    """
    good = table["problem"] == ""
    plan = make_plan(table[good], options, where=where)
    table.loc[good, "split"] = plan.parts[0].split
    sides = plan.sides(table)
    if not plan.is_single:
        table.loc[good, "split"] = "test"
    findings = audit(table, measurements, tiles, sides=sides, protocol=plan.protocol)
    return Prepared(tiles, root, table, measurements, plan, findings)
