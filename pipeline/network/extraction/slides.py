"""Embed the tiles of a slide, which are read as a stream and never written to disk."""

import dataclasses
import shutil
from pathlib import Path

import pandas as pd

from pipeline.errors import BadInput
from pipeline.network.extraction.run import (
    Engines,
    ExtractionJob,
    ExtractionSettings,
    embed_to_hdf5,
    embedding_artifact,
)
from pipeline.network.extraction.slide_model import SlideModel
from pipeline.network.extraction.slide_tiles import SlideTiles
from pipeline.network.model_file import Model
from pipeline.runtime.console import log
from pipeline.slides.find import SlideEntry
from pipeline.slides.grid import Grid, thumbnail_path
from pipeline.slides.openslide_reader import open_slide
from pipeline.slides.outcomes import Outcome
from pipeline.slides.place import check_same_content, content_facts
from pipeline.slides.scale import GivenMpp
from pipeline.slides.tiling import grid_of
from pipeline.storage import atomic, freshness
from pipeline.storage.embeddings.partial_rows import header_path


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
        size, mpp = model.preprocess.size, model.preprocess.mpp
        grid = grid_of(self.run, entry, size=size, mpp=mpp, force=self.settings.force)
        if not header_path(out).is_file():  # else its replacement was begun, by --restart
            check_same_content(out, entry.path, sha256=grid.info.slide_sha256, restart=self.settings.restart)
        inputs, known = [grid.path, trained.path, entry.path], {entry.path: grid.info.slide_sha256}
        artifact = embedding_artifact(out, self.settings.recorded, inputs, known)
        record = freshness.reusable_record(artifact, restart=self.settings.restart)
        if record is not None:
            return Outcome(entry.name, tiles=len(grid.table), skipped=len(record["details"]["skipped"]))
        at_scale = at_scale_of(model, grid)
        key = trained.path, grid.info.tile_px
        self.engines = {key: self.engines.get(key, {})}  # those of one network at a time: memory
        with open_slide(entry.path, GivenMpp(grid.info.mpp, grid.path.name, overrules=True)) as slide:
            tiles = SlideTiles(
                slide,
                grid.coords,
                side=grid.info.patch_size_level0,
                preprocess=at_scale.preprocess,
            ).fit_colours()
            job = ExtractionJob(
                artifact,
                at_scale,
                model_file=trained.path,
                tile_list=grid.path,
                tiles=tiles,
                all_tiles=tiles,
                table=tile_table(entry, grid),
                training=trained.manifest,
                details={
                    **content_facts(entry.path, grid.info.slide_sha256, out.parent),
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


def at_scale_of(model: Model, grid: Grid) -> Model:
    """Return the model with the tile size and the scale of a grid.

    Raises:
        BadInput: tiles of another size, from which the model crops a square.
    """
    if model.preprocess.crop is not None and grid.info.tile_px != model.preprocess.size:
        raise BadInput(
            f"the grid of {grid.info.slide} has tiles of {grid.info.tile_px} px, but the network crops "
            f"{model.preprocess.crop} px from {model.preprocess.size} px: run `python -m pipeline.tile --restart`"
        )
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
