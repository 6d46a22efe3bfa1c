"""Embed the tiles of a slide, which are read as a stream and never written to disk."""

import dataclasses
import shutil
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from pipeline.errors import BadSlide, StaleInput
from pipeline.network.extraction.run import (
    Engines,
    ExtractionJob,
    ExtractionSettings,
    embed_to_hdf5,
    embedding_artifact,
)
from pipeline.network.extraction.slide_model import SlideModel
from pipeline.network.extraction.slide_tiles import SlideTiles
from pipeline.network.model_file import Model, Preprocess
from pipeline.runtime.console import log
from pipeline.slides.batch import Outcome
from pipeline.slides.find import SlideEntry
from pipeline.slides.grid import Grid, grid_path, read_grid, thumbnail_path
from pipeline.slides.openslide_reader import open_slide
from pipeline.slides.tiling import Tiling, check_scale, tile_slide
from pipeline.storage import atomic, freshness, records
from pipeline.storage.csv_files import no_formula

TABLE_SCHEMA = "slides/1.0"


@dataclasses.dataclass
class SlideExtraction:
    """Embed the slides of one command; engines are built once for all slides of one network and tile size."""

    run: Path
    """The run folder, whose grids are used."""

    settings: ExtractionSettings
    engines: dict[tuple[Path, int], Engines] = dataclasses.field(default_factory=dict)
    """Model file and tile size -> engines that served the last slide."""

    def extract(self, entry: SlideEntry, trained: SlideModel, model: Model, out: Path) -> Outcome:
        """Embed one slide, or continue, or do nothing if its file is current.

        Args:
            entry: the slide.
            trained: the network's file, and what it was trained on.
            model: the network.
            out: `<slide>.h5`.

        Raises:
            BadInput: the slide cannot be used, or too many of its regions cannot be decoded.
            StaleInput: grid or rows were made from another slide or by another model, or the model is older than the
                tiles it was trained on.
            Interrupted: the rows so far are kept.
        """
        if not self.settings.force:
            freshness.check_inputs_unchanged(trained.path, model.record)
        grid = slide_grid(self.run, entry, model.preprocess, force=self.settings.force)
        inputs, known = [grid.path, trained.path, entry.path], {entry.path: grid.info.slide_sha256}
        artifact = embedding_artifact(out, self.settings.recorded, inputs, known)
        record = freshness.reusable_record(artifact, restart=self.settings.restart)
        if record is not None:
            return Outcome(entry.name, tiles=len(grid.table), skipped=len(record["details"]["skipped"]))
        key = trained.path, grid.info.tile_px
        self.engines = {key: self.engines.get(key, {})}  # those of one network at a time: memory
        with open_slide(entry.path, grid.info.mpp) as slide:
            tiles = SlideTiles(
                slide,
                grid.coords,
                side=grid.info.patch_size_level0,
                size=grid.info.tile_px,
                stain=model.preprocess.stain,
            )
            job = ExtractionJob(
                artifact,
                at_scale_of(model, grid),
                model_file=trained.path,
                tile_list=grid.path,
                tiles=tiles,
                all_tiles=tiles,
                table=tile_table(entry, grid),
                training=trained.manifest,
                details={
                    "slide": grid.info.slide,
                    "source": trained.source,
                    "saw_source": trained.saw_source,
                    "thumbnail": thumbnail_path(out, entry.name).name,
                    "thumbnail_downsample": grid.details["thumbnail_downsample"],
                    "credit": model.info.get("credit"),
                },
                outputs=[copy_thumbnail(grid.path, out, entry.name)],
                slide=grid.info,
            )
            skipped = embed_to_hdf5(job, self.settings, self.engines[key])
        if trained.saw_source is True:
            log.warning(
                f"extract: {entry.name}: the network was trained on tiles of this slide's source ({trained.source}): "
                "its map is biased upwards"
            )
        return Outcome(entry.name, tiles=len(tiles), skipped=len(skipped))


def slide_grid(run: Path, entry: SlideEntry, preprocess: Preprocess, *, force: bool) -> Grid:
    """Return the slide's grid: the one that `pipeline.tile` made, or one made now by its defaults.

    Args:
        run: the run folder.
        entry: the slide.
        preprocess: of the network, with the scale it was trained at.
        force: use a grid of another scale.

    Raises:
        BadSlide: there is no grid, and the model has no scale to make one.
        StaleInput: the grid was made from another file, or with another mpp.
        UsageError: the grid shows the network another scale than it was trained at.
    """
    path = grid_path(run, entry.name)
    if not path.is_file():
        if preprocess.mpp is None:
            raise BadSlide(
                f"{entry.path}: it has no grid, and the model does not record its scale: run `python -m pipeline.tile` "
                "with --mpp-target"
            )
        return tile_slide(run, entry, Tiling(preprocess.size, preprocess.mpp), force=force, restart=False)
    grid = read_grid(path)
    info = grid.info
    if entry.mpp is not None and entry.mpp != info.mpp:
        raise StaleInput(f"{path} was made with {info.mpp:g} um/px, not {entry.mpp:g}: run pipeline.tile again")
    if entry.path.is_file() and atomic.sha256_file(entry.path) != info.slide_sha256:
        raise StaleInput(f"{path} is the grid of another file than {entry.path}: run pipeline.tile again")
    check_scale(preprocess.size, preprocess.mpp, tile_px=info.tile_px, tile_mpp=info.tile_mpp, force=force)
    return grid


def at_scale_of(model: Model, grid: Grid) -> Model:
    """Return the model with the tile size and the scale of a grid."""
    preprocess = {**model.info["preprocess"], "size": grid.info.tile_px, "mpp": grid.info.tile_mpp}
    return dataclasses.replace(model, info={**model.info, "preprocess": preprocess})


def tile_table(entry: SlideEntry, grid: Grid) -> pd.DataFrame:
    """Return a row for each tile in the columns of `write_embeddings`."""
    table = grid.table[["x", "y"]].copy()
    table["tile_id"] = [f"{entry.name}_x{x}_y{y}" for x, y in zip(table["x"], table["y"], strict=True)]
    table["path"], table["group"] = grid.info.slide, entry.name
    table["label"] = table["split"] = ""
    return table


def copy_thumbnail(grid_file: Path, out: Path, name: str) -> Path:
    """Copy the slide's thumbnail next to its embeddings, if it is not there; return its path."""
    own, copied = thumbnail_path(grid_file, name), thumbnail_path(out, name)
    if own.resolve() != copied.resolve():
        copied.parent.mkdir(parents=True, exist_ok=True)
        with atomic.atomic(copied) as temporary:
            shutil.copyfile(own, temporary)
    return copied


def write_outcomes(path: Path, outcomes: Sequence[Outcome], *, inputs: Sequence[Path]) -> None:
    """Write slides.csv, the outcome of each slide of a command, and its record."""
    table = pd.DataFrame([dataclasses.asdict(outcome) for outcome in outcomes])
    table["seconds"] = table["seconds"].round(1)
    for column in ("slide", "problem"):
        table[column] = table[column].map(no_formula)
    atomic.write_text(path, table.to_csv(index=False, lineterminator="\n"))
    counts = {"slides": len(table), "failed": int(table["problem"].ne("").sum())}
    records.write_record(records.Artifact(path, TABLE_SCHEMA, "extract", inputs=inputs), details=counts)
