"""Predict the classes of a slide's tiles and draw the class map, or predict new tiles without a slide.

Reads the embeddings of a slide (`python -m pipeline.extract --slide`) and the saved heads of the run that made them.
With --tiles it reads a folder of tiles and embeds them first, without saving the embeddings. Writes predictions.csv.
For a slide it also writes map.png, map.geojson, uncertainty.png, probabilities.png, areas.csv, map.md and map.html.
Several heads each get their own files, and a table of their agreement. With --truth the map is scored against the
ground truth. In a cross-validation plan the heads are those of the part whose network embedded the slide.

    python -m pipeline.predict --run reports/mine --embeddings slide.h5 --head all
    python -m pipeline.predict --run reports/mine --tiles new_tiles
"""

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pipeline.cli.command import Command
from pipeline.cli.options import Common, check, plain
from pipeline.errors import EXIT_OK, EXIT_SKIPPED, BadArtifact, BadInput, UsageError
from pipeline.inference.embeddings import predict_rows
from pipeline.names import HEADS, RUN_ONLY, RunFile
from pipeline.runtime.console import log
from pipeline.slides.place import check_same_content, content_facts, results_folder, slide_of
from pipeline.storage import atomic, environment, freshness, records
from pipeline.storage.lock import locked
from pipeline.storage.protocol import read_protocol

if TYPE_CHECKING:
    import numpy as np

    from pipeline.network.preprocess import Preprocess

EMBED_SLIDE = "embed the slide by this run's network (`python -m pipeline.extract --slide`), or give the --run it is by"
FIT_AGAIN = "run `python -m pipeline.extract` and `python -m pipeline.fit_heads` again"


@dataclasses.dataclass(frozen=True)
class PredictOptions:
    """Inputs, heads and output folder of a prediction."""

    embeddings: Path | None = None
    """Embeddings of a slide: the file that `python -m pipeline.extract --slide` wrote."""

    tiles: Path | None = None
    """Folder of tiles without a slide. They are embedded with the run's network; there is no map."""

    out: Path | None = None
    """Folder of the results; default: maps/<name of the slide or folder> of the run."""

    head: str = "auto"
    """Head or baseline of the run that predicts, by its name in predictions.csv. auto: softmax, or logistic regression
    for a frozen encoder. all: every head of the run, and their agreement. Baselines and fused heads read the tiles
    again, for colours and texture."""

    geojson: Literal["regions", "tiles", "detections", "none"] = "regions"
    """For QuPath: connected cells of one class merged into annotations, or one tile or detection object per cell."""

    reject: float | None = None
    """Give no class to tiles that are far from all training tiles. The value is the largest share of tiles like the
    validation tiles that is rejected, e.g. 0.05. It needs the embeddings of the run's tiles."""

    truth: Path | None = None
    """Ground truth of the slide, <name>-truth.png with <name>-truth.json next to it: the map is scored against it."""


def run(common: Common, options: PredictOptions) -> int:
    """Predict the tiles of a slide or a folder; return the exit code."""
    environment.git_state()
    source = options.embeddings or options.tiles
    if source is None or (options.embeddings is not None and options.tiles is not None):
        raise UsageError("give --embeddings FILE.h5 of a slide or --tiles FOLDER")
    known = ("auto", "all", *(name for name in HEADS if name not in RUN_ONLY))
    check(options.head in known, f"--head {options.head}: one of {', '.join(known)}")
    check(options.reject is None or 0 < options.reject < 1, f"--reject {options.reject}: a share between 0 and 1")
    check(options.reject is None or options.tiles is None, "--reject: only for the map of a slide")
    check(options.truth is None or options.tiles is None, "--truth: only a slide has a map that can be scored")
    name = source.stem if options.embeddings else source.resolve().name
    out = options.out or results_folder(common.run, atomic.MAPS, name)
    table = out / RunFile.PREDICTIONS
    is_foreign = records.record_path(table).is_file() and not is_ours(table)
    if is_foreign or (out / RunFile.MANIFEST).exists() or (out.exists() and out.samefile(common.run)):
        raise UsageError(f"--out {out}: a run folder, whose predictions.csv would be replaced: give another folder")
    predict = predict_slide if options.embeddings else predict_folder
    with locked(out):
        atomic.remove_temporaries(out)
        return predict(common, options, source, out)


def is_ours(table: Path) -> bool:
    """Return whether this command made a predictions.csv, which may be missing or damaged; fit_heads makes them too."""
    try:
        return bool(records.read_record_alone(table)["stage"] == "predict")
    except BadArtifact:
        return True  # nobody can use a file with a damaged record


def predict_slide(common: Common, options: PredictOptions, path: Path, out: Path) -> int:
    """Draw the map of a slide from its embeddings unless the map is current; return the exit code."""
    from pipeline.annotations.geojson import shapely
    from pipeline.inference.find_heads import folder_of_network, read_heads
    from pipeline.inference.groups import group_rule, slide_csv
    from pipeline.inference.outliers import fit_rejection, outlier_scores
    from pipeline.inference.pixel_features import describe_slide, why_no_description
    from pipeline.inference.saved_heads import EmbeddedBy
    from pipeline.maps.build import build_maps, read_thumbnail
    from pipeline.maps.geojson import OTHERWISE, Objects
    from pipeline.maps.ground_truth import description_path, read_ground_truth
    from pipeline.maps.write import remove_earlier, write_files
    from pipeline.runtime.device import n_workers, use_device
    from pipeline.storage.embeddings import reader as stored
    from pipeline.storage.predictions import unlabelled
    from pipeline.tiles.manifest import read_manifest

    record = freshness.checked_record(path, schema=stored.SCHEMA, force=common.force)
    content = stored.read_embeddings(path, with_features=False)
    if content.coords is None or content.slide is None:
        raise BadInput(
            f"{path}: no /coords: its rows are tiles without a slide. Predictions for the run's own tiles are in its "
            "predictions.csv; give new tiles by --tiles FOLDER, and embed slides with extract --slide"
        )
    model = content.attrs["model_sha256"]
    place = folder_of_network(common.run, EmbeddedBy(model, str(path), EMBED_SLIDE))
    network = EmbeddedBy(model, f"the network of {path}", EMBED_SLIDE)
    slide, source = content.slide, slide_of(path, record, content.slide)
    no_pixels = functools.partial(why_no_description, source, place / RunFile.MANIFEST)
    saved = read_heads(place, options.head, network, force=common.force, no_pixels=no_pixels)
    if content.classes != saved.classes:
        raise BadInput(
            f"{path}: its classes ({', '.join(content.classes)}) are not those of the heads "
            f"({', '.join(saved.classes)}): {EMBED_SLIDE}"
        )
    ok = content.status == stored.OK
    if not ok.any():
        raise BadInput(f"{path}: none of its {len(ok)} tiles could be read: there is nothing to predict")
    inputs = [path, *saved.files]
    rejection = None if options.reject is None else fit_rejection(place, saved, options.reject)
    if rejection is not None:
        inputs.append(rejection.embeddings)
    rule = group_rule(common.run, content.classes, force=common.force)
    truth = None
    if options.truth is not None:
        truth = read_ground_truth(options.truth, content.classes, slide)
        inputs += [options.truth, description_path(options.truth)]
    words = chosen(options) | {"groups": rule and dataclasses.asdict(rule)}
    artifact = records.Artifact(out / RunFile.PREDICTIONS, unlabelled.SCHEMA, "predict", words, inputs)
    check_same_content(artifact.path, source, sha256=slide.slide_sha256, restart=common.restart)
    code = EXIT_OK if ok.all() else EXIT_SKIPPED
    if freshness.reusable_record(artifact, restart=common.restart) is not None:
        return code
    if options.geojson == "regions":
        shapely(OTHERWISE)
    described: Mapping[str, np.ndarray] = {}
    if saved.described is not None:
        device = use_device(common.device, common.threads, deterministic=common.deterministic)
        manifest, workers = read_manifest(place / RunFile.MANIFEST), n_workers(common.workers)
        described = describe_slide(saved, content, source, manifest, device=device, workers=workers)
    outputs = predict_rows(saved, content, path, described)
    outliers = None if rejection is None else (rejection, outlier_scores(rejection, content, path))
    maps = build_maps(
        content,
        outputs,
        truth,
        details=record["details"],
        fitted_on=saved.embedded,
        sources=saved.sources,
        outliers=outliers,
    )
    kept = [tile for tile, used in zip(content.tile_id, ok, strict=True) if used]
    unlabelled.write_predictions(artifact.path, kept, outputs, coords=content.coords[ok], classes=content.classes)
    log.info("predict: drawing maps")
    objects: Objects | None = None if options.geojson == "none" else options.geojson
    tables = {}
    if rule is not None:
        scores = None if outliers is None else outliers[1]
        tables[RunFile.GROUPS] = slide_csv(slide.slide, outputs, scores, rule=rule, classes=content.classes)
    thumbnail = read_thumbnail(path, record)
    files = write_files(out, maps, thumbnail=thumbnail, truth=truth, objects=objects, tables=tables)
    remove_earlier(out, files)
    details = {
        **content_facts(source, slide.slide_sha256, out),
        "slide": slide.slide,
        "saw_source": maps.saw_source,
        "n_tiles": len(ok),
        "skipped": record["details"].get("skipped", {}),
    }
    records.write_record(artifact, outputs=files, details=details)
    log.info(f"predict: {', '.join(outputs)} on {len(kept)} tiles of {slide.slide}: {out / 'map.md'}")
    if objects and (slide.bounds_x or slide.bounds_y):
        log.info(f"predict: map.geojson counts from the scanned area at ({slide.bounds_x}, {slide.bounds_y}) px")
    if maps.saw_source:
        log.warning(f"predict: the network was trained on tiles of the source of {slide.slide}: the map is optimistic")
    if not ok.all():
        log.warning(f"predict: {int((~ok).sum())} tiles could not be read; the map shows them as missing")
    return code


def chosen(options: PredictOptions) -> dict[str, Any]:
    """Return the options that decide the content of the results."""
    return {name: value for name, value in plain(options).items() if name in ("head", "geojson", "reject")}


def predict_folder(common: Common, options: PredictOptions, folder: Path, out: Path) -> int:
    """Embed the tiles of a folder with the run's network and predict them; return the exit code."""
    from pipeline.heads.rows import EMBEDDINGS
    from pipeline.inference.find_heads import read_heads
    from pipeline.inference.pixel_features import tile_side
    from pipeline.inference.saved_heads import EmbeddedBy
    from pipeline.inference.tiles import TrainedNetwork, predict_tiles
    from pipeline.maps.write import remove_earlier
    from pipeline.network.engines.recorded import recorded_engine
    from pipeline.network.model_file import load_model
    from pipeline.network.tile_files import TileFiles, log_colours
    from pipeline.runtime.device import n_workers, use_device
    from pipeline.storage.predictions import unlabelled
    from pipeline.storage.predictions.csv_table import HeadOutput
    from pipeline.tiles.datasets.files import files_digest, image_files
    from pipeline.tiles.manifest import read_manifest

    if read_protocol(common.run) is not None:
        raise UsageError(f"--tiles: {common.run} is a plan: give the --run of one of its parts")
    names = image_files(folder)
    path = common.run / RunFile.MODEL
    model = load_model(path)
    embedded_by = EmbeddedBy(atomic.sha256_file(path), str(path), FIT_AGAIN)
    saved = read_heads(common.run, options.head, embedded_by, force=common.force)
    if model.classes != saved.classes:
        raise BadInput(f"{common.run / RunFile.HEADS}: its classes are not those of {path}: {FIT_AGAIN}")
    digest = files_digest(folder, names)
    artifact = records.Artifact(
        out / RunFile.PREDICTIONS,
        unlabelled.SCHEMA,
        "predict",
        {"head": options.head, "tiles_sha256": digest},
        [path, *saved.files],
    )
    check_same_content(artifact.path, folder, sha256=digest, restart=common.restart)
    record = freshness.reusable_record(artifact, restart=common.restart)
    if record is not None:
        return EXIT_SKIPPED if record["details"].get("skipped") else EXIT_OK
    device = use_device(common.device, common.threads, deterministic=common.deterministic)
    workers = n_workers(common.workers)

    def prepared(preprocess: "Preprocess") -> TileFiles:
        tiles = TileFiles(folder, names, None, preprocess, side=tile_side(manifest)).fit_colours(workers=workers)
        if tiles.colours is not None:
            log.warning(f"predict: colours are normalised by source: all tiles of {folder} count as one source")
        log_colours("predict", [tiles])
        return tiles

    if saved.means:
        log.warning(f"predict: features are relative to a group: all tiles of {folder} count as one slide")
    manifest, network = read_manifest(common.run / RunFile.MANIFEST), None
    if EMBEDDINGS in saved.feature_sets:
        engine = recorded_engine(saved.embedded, model, manifest, device, workers=workers)
        network = TrainedNetwork(engine, model.preprocess)
    outputs, problems = predict_tiles(
        saved,
        network,
        prepared,
        device=device,
        workers=workers,
        max_bad=common.max_bad,
        label="predict",
    )
    if not (kept := [row for row in range(len(names)) if row not in problems]):
        raise BadInput(f"{folder}: no tile can be read; the first: {problems[0]}")
    unlabelled.write_predictions(
        artifact.path,
        [names[row] for row in kept],
        {head: HeadOutput(output.predicted[kept], output.p[kept]) for head, output in outputs.items()},
        coords=None,
        classes=model.classes,
    )
    remove_earlier(out, [])
    records.write_record(
        artifact,
        details={
            **content_facts(folder, digest, out),
            "n_tiles": len(names),
            "skipped": {names[row]: problem for row, problem in problems.items()},
        },
        device=str(device),
    )
    log.info(f"predict: {', '.join(outputs)} on {len(kept)} tiles in {out / RunFile.PREDICTIONS}")
    for problem in problems.values():
        log.warning(f"predict: skipped {problem}")
    return EXIT_SKIPPED if problems else EXIT_OK


main = Command("pipeline.predict", __doc__, PredictOptions, run, access="read")
"""Entry point of `python -m pipeline.predict`."""


if __name__ == "__main__":
    raise SystemExit(main())
