"""Train torchvision's ResNet-50 end to end, from scratch by default, on the training tiles of the manifest.

Reads manifest.csv; writes model.safetensors with model.json, history.csv, figures/history.png and figures/batch.png,
and metrics.jsonl, one line after each epoch. The epoch with the best validation accuracy is kept. Stop it at any
moment: the same command continues from checkpoint.pt and takes the same steps.

    python -m pipeline.train --run reports/mine --recipe tutorial
    torchrun --nproc-per-node 4 -m -- pipeline.train --run reports/mine     four GPUs: the same steps, shared out
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pipeline.cli.command import Command
from pipeline.cli.fold_runs import each_part
from pipeline.cli.options import Common, check, plain
from pipeline.errors import EXIT_OK, BadInput, UsageError
from pipeline.names import IMAGENET, RunFile
from pipeline.network.training.recipe import (
    Recipe,
    check_switch,
    colour_switches,
    given_switches,
    offers_switches,
    recipe_for,
)
from pipeline.runtime.console import log
from pipeline.runtime.process import is_first, n_ranks
from pipeline.storage import atomic, freshness, records
from pipeline.storage.protocol import read_protocol

if TYPE_CHECKING:
    from pipeline.network.training.trainer import Trainer
    from pipeline.tiles.manifest import Manifest


@dataclasses.dataclass(frozen=True)
@offers_switches
class TrainOptions:
    """Which network, and how it is trained. Each switch of `Recipe` is an option, too; its default is the recipe's."""

    GROUPS: ClassVar[Mapping[str, str]] = {"train": "recipe", "recipe": "tile_px"}

    recipe: Literal["tutorial", "quick", "strong"] | None = None
    """tutorial: Adam 1e-3, StepLR x0.1 every 7 epochs, 15 epochs, flips, 150 px. strong: most switches below, 20 epochs
    at 96, 128, 150 px (64 px for small tiles), changes of colour where the training sources differ in colour. quick:
    strong in 24 epochs at 64 px. Default: quick for the demo, tutorial for everything else."""

    arch: Literal["resnet50", "resnet18", "resnet10"] = "resnet50"
    """The network; embeddings are 2048, 512 or 512 wide."""

    init: str | None = None
    """Start weights: imagenet (torchvision's, for resnet50 and resnet18: from torch's cache, or downloaded into it), a
    safetensors file or a torchvision state dict (.pth); default: from scratch."""

    normalise: Literal["none", "source"] = "none"
    """source: white point and stains of each source (group) are moved to the mean of the training sources, by one map
    for all of its tiles. Test sources get maps of their own, without labels."""

    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto: bf16 where the GPU or CPU computes in it, else fp32. fp32 on an NVIDIA GPU is torch's: TF32 in convolutions
    only."""

    compiled: bool = False
    """Take the steps through torch.compile, on an NVIDIA GPU as CUDA graphs: minutes of preparation, then faster steps
    on a GPU (slower ones on a CPU). Needs a C++ compiler."""

    tensorboard: bool = False
    """Write event files for TensorBoard into tensorboard/ of the run (extra tensorboard)."""

    def __post_init__(self) -> None:
        """Check ranges."""
        for name, value in given_switches(self).items():
            check_switch(name, value)
        check(self.init != "", "--init is empty: imagenet or a file is needed")
        check(
            self.init != IMAGENET or self.arch != "resnet10",
            "--init imagenet: torchvision has no such weights for resnet10: take resnet50, resnet18, or --init FILE",
        )


def resolve_options(manifest: "Manifest", options: TrainOptions) -> tuple[Recipe, dict[str, Any]]:
    """Return the recipe with the user's changes, and all options as the model's record keeps them."""
    name = options.recipe or ("quick" if manifest.details.get("origin") == "demo" else "tutorial")
    side = float(manifest.readable["width"].median())
    fitted = recipe_for(name, tile_side=side, colour_share=manifest.details.get("source_colours"))
    recipe = dataclasses.replace(fitted, **given_switches(options))
    is_file = options.init not in (None, IMAGENET)
    init = f"./{Path(str(options.init)).name}" if is_file else options.init  # its content is an input, not its place
    chosen = plain(options) | {"recipe": name, "init": init} | plain(recipe)
    del chosen["tensorboard"]  # decides nothing that is learnt
    if options.normalise == "none":
        del chosen["normalise"]
    return recipe, chosen


def artifact_of(manifest: "Manifest", options: TrainOptions, *, seed: int) -> records.Artifact:
    """Return how the model of a manifest is made; a checkpoint is the unfinished replacement."""
    from pipeline.network.model_file import SCHEMA

    path, chosen = manifest.path.with_name(RunFile.MODEL), resolve_options(manifest, options)[1]
    is_replaced = path.with_name(RunFile.CHECKPOINT).is_file()
    return records.Artifact(
        path,
        SCHEMA,
        "train",
        chosen,
        inputs_of(manifest, options),
        seed,
        protects="nothing" if is_replaced else "everything",
    )


def start_training(
    manifest: "Manifest", recipe: Recipe, options: TrainOptions, common: Common, chosen: dict[str, Any]
) -> "Trainer":
    """Build network, tiles and training state; nothing is trained yet."""
    from pipeline.network.training.build import TrainingRequest, build_trainer
    from pipeline.network.training.epoch_log import EpochLog
    from pipeline.runtime.device import n_workers, use_device

    request = TrainingRequest(
        recipe=recipe,
        arch=options.arch,
        init=options.init,
        normalise=options.normalise,
        precision=options.precision,
        device=use_device(common.device, common.threads, deterministic=common.deterministic),
        seed=common.seed,
        workers=n_workers(common.workers),
        checkpoint=common.run / RunFile.CHECKPOINT,
        options=chosen,
        compiled=options.compiled,
        log=EpochLog(common.run, tensorboard=options.tensorboard) if is_first() else None,
    )
    return build_trainer(manifest, request)


def inputs_of(manifest: "Manifest", options: TrainOptions) -> list[Path]:
    """Return the files that decide what is learnt: the manifest, and the start weights if the user gave a file.

    Those of ImageNet are the same for everyone, and are outside the run: the record has their hash.
    """
    return [manifest.path, *([Path(options.init)] if options.init not in (None, IMAGENET) else [])]


def started_from(options: TrainOptions) -> str | None:
    """Return the description of the start weights in model.json, None if there are none."""
    from pipeline.network.pretrained import WEIGHTS

    return f"ImageNet (torchvision's {WEIGHTS[options.arch].name})" if options.init == IMAGENET else options.init


def run(common: Common, options: TrainOptions) -> int:
    """Train the network, or that of every part of a plan; return the exit code."""

    def all_parts() -> int:
        return each_part(common, read_protocol(common.run), lambda place: train(place, options), what="train")

    if n_ranks() == 1:
        return all_parts()
    if options.compiled:
        raise UsageError("--compiled: only for a single process: leave it out under torchrun")
    from pipeline.network.distributed import process_group

    with process_group():
        return all_parts()


def train(common: Common, options: TrainOptions) -> int:
    """Train, or continue, or do nothing if the model is current; return the exit code."""
    from pipeline.tiles.manifest import read_manifest

    manifest = read_manifest(common.run / RunFile.MANIFEST)
    recipe, chosen = resolve_options(manifest, options)
    name = chosen["recipe"]
    checkpoint = common.run / RunFile.CHECKPOINT
    for start in inputs_of(manifest, options)[1:]:
        if not start.is_file():
            raise BadInput(f"--init {start}: no such file")
    if freshness.reusable_record(artifact_of(manifest, options, seed=common.seed), restart=common.restart) is not None:
        return EXIT_OK
    if common.restart and is_first():
        checkpoint.unlink(missing_ok=True)

    training = start_training(manifest, recipe, options, common, chosen)
    if training.resume():
        log.info(f"train: continuing after epoch {training.state.epoch}, step {training.state.step}")
    else:
        colours = manifest.details.get("source_colours")
        if name != "tutorial":
            share = "unknown" if colours is None else f"{colours:.0%} of their variance"
            log.info(
                f"train: colours that the training sources explain: {share}; recipe {name} "
                f"{'with' if recipe.stain_scale or recipe.colour_jitter else 'without'} changes of colour"
            )
        log.info(
            f"train: {options.arch} from {started_from(options) or 'scratch'}, recipe {name}, {recipe.epochs} epochs "
            f"of {len(training.train[0])} tiles, {', '.join(map(str, recipe.sides()))} px, {training.device}, "
            f"{training.precision}" + (f", {n_ranks()} processes" if n_ranks() > 1 else "")
        )
    training.run()
    if is_first():
        finish(manifest, training, common, options, chosen)
        checkpoint.unlink(missing_ok=True)
    return EXIT_OK


def finish(
    manifest: "Manifest", training: "Trainer", common: Common, options: TrainOptions, chosen: dict[str, Any]
) -> None:
    """Write the model, its description, the history and the figures, and last the record."""
    import pandas as pd
    import torch

    from pipeline.figures.training import draw_batch, draw_history
    from pipeline.network.batches import load_batches
    from pipeline.network.model_file import description_path, save_model
    from pipeline.network.training.augmentation import augment, draw
    from pipeline.network.training.epoch_log import METRICS, EpochLog

    path = common.run / RunFile.MODEL
    state = training.state
    info = {
        "arch": options.arch,
        "classes": manifest.classes,
        "preprocess": training.setup.preprocess.as_json(),
        "recipe": {"name": chosen["recipe"], **plain(training.recipe), "precision": training.precision},
        "metrics": {
            "best_epoch": state.best_epoch,
            "val_accuracy": state.best_accuracy,
            "val_loss": state.best_loss,
        },
        "init": started_from(options),
        "seed": common.seed,
        "licence_of_data": manifest.details.get("licence"),
        "credit": manifest.details.get("credit"),
    }
    history = pd.DataFrame(state.history)
    outputs = [
        description_path(path),
        common.run / RunFile.HISTORY,
        common.run / "figures" / "history.png",
        common.run / "figures" / "batch.png",
        common.run / METRICS,
    ]
    log_file = training.setup.log or EpochLog(common.run, tensorboard=False)
    log_file.write(state.history)  # a process that was killed may have missed the last epoch
    log_file.close()
    atomic.write_text(outputs[1], history.to_csv(index=False, lineterminator="\n"))
    draw_history(outputs[2], history, best_epoch=state.best_epoch)
    # of the last epoch, when input and changes have grown
    recipe, last = training.recipe, training.recipe.epochs - 1
    batch = next(load_batches(training.train[0], training.epoch_batches(last)[:1], workers=0))
    numbers = draw((common.seed, last, 0), len(batch.rows))
    seen = augment(batch.pixels, recipe.at(last / recipe.epochs), numbers, side=recipe.side(last))
    draw_batch(outputs[3], seen.numpy(), [manifest.classes[code] for code in training.train[1][batch.rows]])
    save_model(path, training.best, info)
    artifact = artifact_of(manifest, options, seed=common.seed)
    by_colours = colour_switches(artifact.options["recipe"]) - set(given_switches(options))
    records.write_record(
        artifact,
        outputs=outputs,
        details={
            "dataset": manifest.details["dataset"],
            "protocol": manifest.details["protocol"],
            "source_colours": manifest.details.get("source_colours"),
            "decided_by_colours": sorted(by_colours),
            "precision": training.precision,
            "norms": training.train_step.norms,
            "init_sha256": training.setup.identity["init"],
            "init_removed": training.setup.identity["init_removed"],
            "processes": n_ranks(),
            "threads": torch.get_num_threads(),
            **colour_facts(training),
        },
        device=str(training.device),
    )
    log.info(
        f"train: best validation accuracy {state.best_accuracy:.3f} in epoch {state.best_epoch} of "
        f"{training.recipe.epochs}, {path}"
    )


def colour_facts(training: "Trainer") -> dict[str, Any]:
    """Return how the colours of the training tiles were normalised, for the record; empty if they were not."""
    colours = training.train[0].colours
    return {} if colours is None else {"normalised": colours.facts}


main = Command("pipeline.train", __doc__, TrainOptions, run, together=True)
"""Entry point of `python -m pipeline.train`."""


if __name__ == "__main__":
    raise SystemExit(main())
