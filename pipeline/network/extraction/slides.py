"""The embeddings of a slide: tiles are read and embedded as a stream, and kept row by row until the file is built."""

import dataclasses
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from pipeline.cli.options import Common
from pipeline.network.engines import Engine
from pipeline.network.engines.resume import SETTLED, settle_engine
from pipeline.network.extraction.resumable_rows import attributes, fill
from pipeline.network.extraction.slide_model import SlideModel
from pipeline.network.extraction.slide_tiles import SlideTiles
from pipeline.network.model_file import Model
from pipeline.runtime.console import log
from pipeline.runtime.device import n_workers
from pipeline.slides.find import SlideEntry
from pipeline.slides.grid import Grid, thumbnail_path
from pipeline.slides.openslide_reader import open_slide
from pipeline.slides.outcomes import Outcome
from pipeline.slides.place import check_same_content, content_facts
from pipeline.slides.scale import GivenMpp
from pipeline.slides.tiling import grid_of
from pipeline.storage import atomic, freshness, records
from pipeline.storage.embeddings.partial_rows import PartialRows, row_type
from pipeline.storage.embeddings.reader import SCHEMA
from pipeline.storage.embeddings.writer import write_embeddings


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
        common, tiles = self.common, model.preprocess
        grid = grid_of(common.run, entry, size=tiles.size, mpp=tiles.mpp, force=common.force)
        check_same_content(out, entry.path, sha256=grid.info.slide_sha256, restart=common.restart)
        inputs = [grid.path, trained.path, entry.path]
        artifact = records.Artifact(out, SCHEMA, "extract", self.chosen, inputs, protects="options")
        record = freshness.reusable_record(artifact, restart=self.common.restart)
        if record is not None:
            return Outcome(entry.name, tiles=len(grid.table), skipped=len(record["details"]["skipped"]))
        return self.embed(entry, trained, as_seen(model, grid), grid, artifact)

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
        with open_slide(entry.path, GivenMpp(info.mpp, grid.path.name, overrules=True)) as slide:
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
                **content_facts(entry.path, info.slide_sha256, out.parent),
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
