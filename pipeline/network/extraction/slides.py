"""The embeddings of a slide: tiles are read and embedded as a stream, and kept row by row until the file is built."""

import dataclasses
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from pipeline.cli.options import Common
from pipeline.errors import BadSlide, StaleInput
from pipeline.network.engines import Engine
from pipeline.network.engines.resume import SETTLED, settle_engine
from pipeline.network.extraction.resumable_rows import attributes, fill
from pipeline.network.extraction.slide_model import SlideModel
from pipeline.network.extraction.slide_tiles import SlideTiles
from pipeline.network.model_file import Model
from pipeline.runtime.console import log
from pipeline.runtime.device import n_workers
from pipeline.slides.batch import Outcome
from pipeline.slides.find import SlideEntry
from pipeline.slides.grid import Grid, grid_path, read_grid, thumbnail_path
from pipeline.slides.openslide_reader import open_slide
from pipeline.slides.tiling import Tiling, check_scale, tile_slide
from pipeline.storage import atomic, freshness, records
from pipeline.storage.csv_files import no_formula
from pipeline.storage.embeddings.partial_rows import PartialRows, row_type
from pipeline.storage.embeddings.reader import SCHEMA
from pipeline.storage.embeddings.writer import write_embeddings

TABLE_SCHEMA = "slides/1.0"


@dataclasses.dataclass
class SlideExtraction:
    """How the slides of one command are embedded; the first one's tiles decide the engine for all."""

    common: Common
    chosen: Mapping[str, Any]
    """Options that decide the rows."""

    device: torch.device
    batch: int
    asked: tuple[str, str]
    """Engine and precision, or auto; those of the first slide once it is begun."""

    n_slides: int
    """That will probably be as large as the first: an engine may take long to get ready if it serves them all."""

    ready: dict[tuple[Path, int], Engine] = dataclasses.field(default_factory=dict)
    """Model and tile size -> the engine that served the last slide."""

    def run(self, entry: SlideEntry, trained: SlideModel, model: Model, out: Path) -> Outcome:
        """Embed one slide, or continue, or do nothing if its file is current.

        Args:
            entry: the slide.
            trained: which network, and what it was trained on.
            model: the same, loaded.
            out: `<slide>.h5`.

        Raises:
            BadInput: the slide cannot be used, or too many of its regions cannot be decoded.
            StaleInput: grid or rows were made of another slide or by another model, or that is older than its tiles.
            Interrupted: the rows so far are kept.
        """
        if not self.common.force:
            freshness.check_inputs_unchanged(trained.path, model.record)
        grid = self.grid(entry, model)
        inputs = [grid.path, trained.path, entry.path]
        artifact = records.Artifact(out, SCHEMA, "extract", self.chosen, inputs, protects="options")
        record = freshness.reusable_record(artifact, restart=self.common.restart)
        if record is not None:
            return Outcome(entry.name, tiles=len(grid.table), skipped=len(record["details"]["skipped"]))
        return self.embed(entry, trained, as_seen(model, grid), grid, artifact)

    def grid(self, entry: SlideEntry, model: Model) -> Grid:
        """Return the slide's grid: as `pipeline.tile` made it, or made now by its defaults.

        Raises:
            StaleInput: it is of another file, or was made with another mpp.
            UsageError: it shows the network another scale than it was trained at.
        """
        path, seen = grid_path(self.common.run, entry.name), model.preprocess
        if not path.is_file():
            if seen.mpp is None:
                raise BadSlide(
                    f"{entry.path}: not cut yet, and the model does not say at which scale it was trained: run "
                    "`python -m pipeline.tile` with --mpp-target"
                )
            tiling = Tiling(seen.size, seen.mpp)
            return tile_slide(self.common.run, entry, tiling, force=self.common.force, restart=False)
        grid = read_grid(path)
        info = grid.info
        if entry.mpp is not None and entry.mpp != info.mpp:
            raise StaleInput(f"{path} was made with {info.mpp:g} um/px, not {entry.mpp:g}: run pipeline.tile again")
        if entry.path.is_file() and atomic.sha256_file(entry.path) != info.slide_sha256:
            raise StaleInput(f"{path} is the grid of another file than {entry.path}: run pipeline.tile again")
        check_scale(seen.size, seen.mpp, tile_px=info.tile_px, tile_mpp=info.tile_mpp, force=self.common.force)
        return grid

    def embed(
        self, entry: SlideEntry, trained: SlideModel, model: Model, grid: Grid, artifact: records.Artifact
    ) -> Outcome:
        """Compute the rows that are missing, build the HDF5 file, its thumbnail and its record."""
        out, inputs = artifact.path, artifact.inputs
        info, network = grid.info, model.network
        table = rows_of(entry, grid)
        hashes = {path.name: atomic.sha256_file(path) for path in inputs[:2]} | {info.slide: info.slide_sha256}
        scratch = PartialRows(
            out,
            row=row_type(network.fc.in_features, len(model.classes)),
            identity={
                "inputs": hashes,
                "options": dict(self.chosen),
                "device": self.device.type,
                "batch": self.batch,
            },
            batch=self.batch,
        )
        out.parent.mkdir(parents=True, exist_ok=True)
        with open_slide(entry.path, info.mpp) as slide:
            tiles = SlideTiles(
                slide,
                grid.coords,
                side=info.patch_size_level0,
                size=info.tile_px,
                stain=model.preprocess.stain,
            )
            engine = settle_engine(
                scratch,
                model,
                trained.manifest,
                tiles,
                asked=self.asked,
                device=self.device,
                restart=self.common.restart,
                force=self.common.force,
                n_tiles=len(tiles) * self.n_slides,
                ready=self.ready.get((trained.path, info.tile_px)),
            )
            self.asked = engine.name, engine.precision
            self.ready = {(trained.path, info.tile_px): engine}
            there = scratch.path.stat().st_size if scratch.path.is_file() else 0
            atomic.require_space(out.parent, len(table) * scratch.row.itemsize * 2 - there)
            skipped = fill(scratch, engine, tiles, self.common, workers=n_workers(self.common.workers))
        write_embeddings(
            out,
            scratch,
            table,
            attrs=attributes(
                model, engine, model_sha256=hashes[trained.path.name], manifest_sha256=hashes[grid.path.name]
            ),
            dtype=str(self.chosen["dtype"]),
            slide=info,
        )
        thumbnail = thumbnail_path(out, entry.name)
        if (own := thumbnail_path(grid.path, entry.name)).resolve() != thumbnail.resolve():
            with atomic.atomic(thumbnail) as temporary:
                shutil.copyfile(own, temporary)
        problems = {str(table["tile_id"].iloc[row]): problem for row, problem in skipped.items()}
        records.write_record(
            artifact,
            outputs=[thumbnail],
            details={
                "skipped": problems,
                **{name: scratch.identity[name] for name in ("batch", *SETTLED)},
                "per_pass": engine.per_pass,
                "slide": info.slide,
                "source": trained.source,
                "saw_source": trained.saw_source,
                "thumbnail": thumbnail.name,
                "thumbnail_downsample": grid.details["thumbnail_downsample"],
                "credit": model.info.get("credit"),
            },
            device=str(self.device),
        )
        scratch.remove()
        log.info(f"extract: {len(table)} rows of {network.fc.in_features} features in {out}{self.warning(trained)}")
        for tile_id, problem in problems.items():
            log.info(f"extract: skipped {tile_id}: {problem}")
        return Outcome(entry.name, tiles=len(table), skipped=len(problems))

    def warning(self, trained: SlideModel) -> str:
        """Return what must be said of the slide's source, or ""."""
        if trained.saw_source is True:
            return f"; the network was trained on tiles of this slide's source ({trained.source}): its map will flatter"
        return ""


def as_seen(model: Model, grid: Grid) -> Model:
    """Return the model with the tile size and scale at which it sees this grid."""
    seen = {**model.info["preprocess"], "size": grid.info.tile_px, "mpp": grid.info.tile_mpp}
    return dataclasses.replace(model, info={**model.info, "preprocess": seen})


def rows_of(entry: SlideEntry, grid: Grid) -> pd.DataFrame:
    """Return a row for each tile in the columns of `write_embeddings`."""
    table = grid.table[["x", "y"]].copy()
    table["tile_id"] = [f"{entry.name}_x{x}_y{y}" for x, y in zip(table["x"], table["y"], strict=True)]
    table["path"], table["group"] = grid.info.slide, entry.name
    table["label"] = table["split"] = ""
    return table


def write_outcomes(path: Path, outcomes: Sequence[Outcome], *, inputs: Sequence[Path]) -> None:
    """Write slides.csv, what became of each slide of a command, and its record."""
    table = pd.DataFrame([dataclasses.asdict(outcome) for outcome in outcomes])
    table["seconds"] = table["seconds"].round(1)
    for column in ("slide", "problem"):
        table[column] = table[column].map(no_formula)
    atomic.write_text(path, table.to_csv(index=False, lineterminator="\n"))
    counts = {"slides": len(table), "failed": int(table["problem"].ne("").sum())}
    records.write_record(records.Artifact(path, TABLE_SCHEMA, "extract", inputs=inputs), details=counts)
