"""Fit SVM and XGBoost heads on the embeddings and predict every row with all heads and baselines.

Reads embeddings.h5 (and baselines.h5, if it is there); writes heads/svm.skops, heads/xgboost.ubj, heads/heads.json and
predictions.csv. Hyper-parameters, early stopping and calibration come from val rows, which the network was not
trained on; test rows are only predicted. A head that is already there and current is not fitted again. Of a plan,
the test rows of all parts are pooled, so that every tile is predicted by networks trained without its fold. Rows that
do not fit into `--memory` are read block by block.

    python -m pipeline.fit_heads --run reports/mine --fit-on heldout
"""

import dataclasses
import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pipeline.cli.command import Command
from pipeline.cli.fold_runs import each_part
from pipeline.cli.options import Common, check
from pipeline.errors import EXIT_OK, EXIT_SKIPPED, BadInput, UsageError
from pipeline.names import BASELINES, FILES, SUMMARY
from pipeline.runtime.console import log
from pipeline.runtime.device import memory_bytes, n_cores, use_device
from pipeline.storage import atomic, freshness, records
from pipeline.storage.freshness import Input, check_input
from pipeline.storage.protocol import FOLDER, Protocol, read_protocol

if TYPE_CHECKING:
    from pipeline.heads.fit import CalibratedHead
    from pipeline.heads.memory_budget import Memory
    from pipeline.heads.search import FitConfig, FitOn


CLUSTER = re.compile(r"(tcp|tls)://[^\s/]+:\d+")
"""Address of a Dask scheduler."""

OWN_OPTION = {"svm": "svm_rows", "xgboost": "rounds"}
"""Head -> the option that decides about it alone: another value does not cost the other heads."""


@dataclasses.dataclass(frozen=True)
class FitHeadsOptions:
    """Which heads, fitted on which rows, and other places for the files."""

    embeddings: Path | None = None
    """Default: embeddings.h5 of the run."""

    heads: tuple[Literal["svm", "xgboost"], ...] = ("svm", "xgboost")
    """Heads to fit beside softmax."""

    fit_on: Literal["train", "heldout", "crossfit"] | None = None
    """train: on the tiles the network was trained on. heldout: on validation tiles. crossfit: on every tile of the
    training side, each embedded by an inner network that held it out (prepare --inner). Default: train, or
    crossfit where there are inner networks."""

    calibration: Literal["auto", "temperature", "sigmoid", "isotonic"] = "auto"
    """auto: for SVM and XGBoost what has the lowest log-loss in grouped cross-validation on held-out rows; softmax
    keeps its temperature, which leaves the network's own answers as they are."""

    baselines: bool = True
    """Also fit the baselines: what a head must beat to be worth its cost."""

    rounds: int = 400
    """XGBoost's rounds at most; early stopping on validation rows usually ends sooner."""

    svm_rows: int = 20_000
    """Rows that an exact SVM is fitted on at most, 8 N^2 bytes of kernel values; above, its kernel is approximated."""

    memory: str | None = None
    """Memory that the command may take, such as 4GB; default: a share of what is free. Rows that do not fit into it are
    read block by block: SVM by landmarks, XGBoost with its bins on disk, both searched on a sample."""

    cluster: str | None = None
    """Dask cluster that fits the heads: local (processes of this machine, which share --memory) or the address of a
    scheduler, tcp://host:port, whose workers see the run folder; --memory is then what each may take."""

    def __post_init__(self) -> None:
        """Check ranges."""
        cluster = self.cluster or "local"
        check(
            cluster == "local" or CLUSTER.fullmatch(cluster),
            f"--cluster {cluster}: local, or tcp://host:port of a Dask scheduler",
        )
        if self.memory is not None:
            memory_bytes(self.memory)
        check(self.svm_rows >= 1, f"--svm-rows {self.svm_rows}: at least 1")
        check(self.rounds >= 1, f"--rounds {self.rounds}: at least 1")
        check(len(set(self.heads)) == len(self.heads), f"--heads {' '.join(self.heads)}: a head is named twice")

    @property
    def rows_to_fit_on(self) -> "FitOn":
        """Train or heldout; of crossfit `for_parts` has made held-out fitting of inner networks."""
        return "heldout" if self.fit_on == "heldout" else "train"


def baselines_file(run: Path) -> Path | None:
    """Return baselines.h5 of the run, or of the plan that the run is a part of; None if there is none."""
    places = [run, *([run.parent.parent] if run.parent.name == FOLDER else [])]
    return next((place / "baselines.h5" for place in places if (place / "baselines.h5").is_file()), None)


def for_parts(protocol: Protocol | None, options: FitHeadsOptions) -> FitHeadsOptions:
    """Return the options for the parts of a plan (or the one split): crossfit is held-out fitting of inner networks.

    The heads of every inner network are fitted on the tiles that it held out; together these are the whole training
    side, and what the networks' heads say of a test tile is averaged.

    Raises:
        BadInput: crossfit without inner networks, or another `--fit-on` with them.
    """
    has_inner = protocol is not None and protocol.n_inner > 0
    if options.fit_on == "crossfit" and not has_inner:
        raise BadInput("--fit-on crossfit needs a plan with inner networks: prepare with --inner 3, then train")
    if has_inner and options.fit_on not in (None, "crossfit"):
        raise BadInput(
            f"--fit-on {options.fit_on}: this plan has inner networks: leave it out, or plan without --inner"
        )
    return dataclasses.replace(options, fit_on="heldout") if has_inner else options


def run(common: Common, options: FitHeadsOptions) -> int:
    """Fit the heads of the run, or of every part of its plan and pool what they say; return the exit code.

    Raises:
        UsageError: one embeddings file for all parts of a plan.
    """
    protocol = read_protocol(common.run)
    if protocol is not None and options.embeddings is not None:
        raise UsageError(
            f"--embeddings: {common.run} is a plan, whose parts have files of their own: give a part's --run"
        )
    how = for_parts(protocol, options)
    code = each_part(common, protocol, lambda place: fit(place, how), what="fit_heads")
    if protocol is not None:
        pool_parts(common, protocol, options)
    return code


def pool_parts(common: Common, protocol: Protocol, options: FitHeadsOptions) -> None:
    """Write the pooled predictions of each arm of a plan, unless they are current."""
    from pipeline.storage.predictions.pool_folds import pool

    for arm in protocol.arms:
        requested = {"heads": list(options.heads), "fit_on": options.fit_on}
        pool(protocol, arm, options=requested, force=common.force)
    pooled = records.standing(protocol.predictions(protocol.main_arm))
    log.info(f"fit_heads: pooled predictions of {len(protocol.parts)} parts in {pooled}")


def fit(common: Common, options: FitHeadsOptions) -> int:
    """Fit, calibrate and predict, or do nothing if the predictions are current; return the exit code."""
    from pipeline.storage.embeddings import reader as embeddings
    from pipeline.storage.predictions import csv_table

    source = check_input(options.embeddings or common.run / "embeddings.h5", schema=embeddings.SCHEMA)
    if not common.force:
        freshness.check_inputs_unchanged(source.path, source.record)
    baselines = baselines_file(common.run) if options.baselines else None
    stated = None if options.memory is None else memory_bytes(options.memory)
    memory = None if stated is None else memory_of(common, options, source.path, baselines, stated=stated)
    # recorded where a stated memory decides: that can be stated again, what happened to be free cannot
    within: dict[str, Any] = {}
    if memory is not None and memory.room is not None:
        within = {"memory": stated, "cluster": options.cluster is not None}
    chosen = {"heads": list(options.heads), "rounds": options.rounds, "fit_on": options.rows_to_fit_on}
    chosen |= {"calibration": options.calibration, "baselines": options.baselines, "svm_rows": options.svm_rows}
    artifact = records.Artifact(
        records.standing(common.run / "predictions.csv"),
        csv_table.SCHEMA,
        "fit_heads",
        chosen | within,
        [source.path, *([baselines] if baselines is not None else [])],
        common.seed,
        source.known,
    )
    if freshness.reusable_record(artifact, restart=common.restart) is None:
        fit_anew(common, options, source, baselines, memory=memory, within=within, artifact=artifact)
    return EXIT_SKIPPED if source.record["details"]["skipped"] else EXIT_OK


def memory_of(
    common: Common, options: FitHeadsOptions, path: Path, baselines: Path | None, *, stated: int | None
) -> "Memory":
    """Return what the command may take of memory, and whether the rows fit into it; see `heads.rows.memory_for`."""
    from pipeline.heads.memory_budget import memory_for

    return memory_for(
        stated,
        path,
        baselines,
        cores=common.threads or n_cores(),
        cluster=options.cluster,
        fit_on=options.rows_to_fit_on,
        svm_rows=options.svm_rows,
    )


def setting_of(common: Common, options: FitHeadsOptions) -> "FitConfig":
    """Return how heads are fitted on rows that fit into memory, by this process; torch is set up for it.

    Raises:
        UsageError: the device is not to be had.
    """
    from pipeline.heads.search import FitConfig

    device = use_device(common.device, common.threads, deterministic=common.deterministic).type
    return FitConfig(
        options.rows_to_fit_on,
        common.seed,
        common.threads or n_cores(),
        device="cuda" if device == "cuda" else "cpu",
        rounds=options.rounds,
        svm_rows=options.svm_rows,
        calibration=options.calibration,
    )


def fit_anew(
    common: Common,
    options: FitHeadsOptions,
    source: Input,
    baselines: Path | None,
    *,
    memory: "Memory | None",
    within: dict[str, Any],
    artifact: records.Artifact,
) -> None:
    """Read the rows, make the heads and write what they say, with the records.

    Args:
        common: the run.
        options: of this stage.
        source: the embeddings.
        baselines: baselines.h5, if baselines are fitted on it.
        memory: as it was stated and shared out; None: it is measured here, before the rows are read.
        within: the stated memory, and whether a cluster fits, if rows do not fit into that memory.
        artifact: how the predictions are made.

    Raises:
        StaleInput: the embeddings were changed while heads were fitted on them.
    """
    from pipeline.heads import fit as making
    from pipeline.heads import rows as material
    from pipeline.heads.probes import probes
    from pipeline.storage.predictions import csv_table
    from pipeline.storage.predictions.parquet_writer import require_pyarrow

    asked = setting_of(common, options)
    memory = memory or memory_of(common, options, source.path, baselines, stated=None)
    with making.open_fit_backend(asked, memory, folder=common.run, cluster=options.cluster) as (setting, streamed):
        embeddings, every = material.all_rows(source.path, streamed)
        usable = csv_table.usable_rows(embeddings)
        if len(every.y) * (1 + len(options.heads) + len(BASELINES) * options.baselines) > csv_table.LARGE_LINES:
            require_pyarrow()  # before hours of fitting
        if streamed is not None:
            room, _ = streamed
            log.info(
                f"fit_heads: {len(usable)} rows do not fit into memory: they are read {room.block_rows} at once, and "
                f"searches take up to {room.sample_rows} of a split"
            )
        split = embeddings.split[usable]
        rows = material.split_rows(every, split, source.path, fit_on=setting.fit_on)
        keep = functools.partial(kept_head, common=common, setting=setting, source=source, within=within)
        heads = making.make_heads(rows, setting, wanted=options.heads, keep=keep)
        sources = material.baseline_rows(embeddings, usable, every, baselines) if options.baselines else {}
        parted = {name: rows if own is every else material.parts(own, split) for name, own in sources.items()}
        heads |= making.make_baselines(parted, setting)
        found = probes(rows, heads["svm"].facts["chosen"] if "svm" in heads else None, seed=common.seed)
        out = csv_table.table_for(common.run / "predictions.csv", len(every.y) * len(heads))
        answers = making.predict_all(heads, every, sources)
        csv_table.write_predictions(out, embeddings, answers)  # last: nothing is read for long any more
    source.check_unchanged()
    facts = {name: made.facts for name, made in heads.items()}
    summary = {"classes": embeddings.classes, "fit_on": setting.fit_on, "heads": facts} | found
    atomic.write_text(common.run / SUMMARY, atomic.to_json(summary))
    details = {name: source.record["details"][name] for name in ("protocol", "dataset", "credit")}
    details |= {"fit_on": setting.fit_on, "calibrated_on": "val", "n_train": len(rows["train"].y)}
    details["n_skipped"] = len(source.record["details"]["skipped"])
    outputs = [common.run / name for name in (SUMMARY, *(FILES[head] for head in options.heads))]
    records.write_record(dataclasses.replace(artifact, path=out), outputs=outputs, details=details)
    log.info(f"fit_heads: predictions of {', '.join(heads)} for {len(every.y)} tiles in {out}")


def kept_head(
    name: str,
    make: "Callable[[], CalibratedHead]",
    *,
    common: Common,
    setting: "FitConfig",
    source: Input,
    within: dict[str, Any],
) -> "CalibratedHead":
    """Return the head that stands in heads/ if it is current, else a newly made and saved one.

    Args:
        name: svm or xgboost.
        make: makes it.
        common: the run.
        setting: how it is made.
        source: the embeddings.
        within: the stated memory, and whether a cluster fits, if rows do not fit into that memory.

    Raises:
        StaleInput: the embeddings were changed meanwhile.
    """
    from pipeline.heads.base import SCHEMA
    from pipeline.heads.fit import CalibratedHead
    from pipeline.heads.saved import LOADERS

    path = common.run / FILES[name]
    chosen = {"fit_on": setting.fit_on, "calibration": setting.calibration} | within
    chosen[OWN_OPTION[name]] = getattr(setting, OWN_OPTION[name])
    artifact = records.Artifact(path, SCHEMA, "fit_heads", chosen, [source.path], common.seed, source.known)
    record = freshness.reusable_record(artifact, restart=common.restart)
    if record is not None:
        return CalibratedHead(LOADERS[name](path), record["details"])
    made = make()
    made.head.save(path)  # type: ignore[attr-defined]
    made.facts["bytes"] = path.stat().st_size
    source.check_unchanged()
    device = setting.device if name == "xgboost" else "cpu"
    records.write_record(artifact, details=made.facts, device=device)
    log.info(f"fit_heads: {name} fitted in {made.facts['search_seconds'] + made.facts['fit_seconds']:.0f} s")
    return made


main = Command("pipeline.fit_heads", __doc__, FitHeadsOptions, run)
"""Entry point of `python -m pipeline.fit_heads`."""


if __name__ == "__main__":
    raise SystemExit(main())
