"""Fit SVM and XGBoost heads on the embeddings, and predict every row with all heads and baselines.

Reads embeddings.h5 (and baselines.h5, if there is one); writes heads/svm.skops, heads/xgboost.ubj, heads/heads.json and
predictions.csv. Hyper-parameters, early stopping and calibration come from val rows, which the network was not trained
on; test rows are only predicted. A head that is saved and current is not fitted again. The test rows of all parts of a
plan are pooled, so that every tile is predicted by networks trained without its fold. Rows that do not fit into
`--memory` are read block by block. A frozen encoder has logistic regression in place of softmax.

    python -m pipeline.fit_heads --run reports/mine --fit-on heldout
"""

import dataclasses
import functools
import re
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pipeline.cli.command import Command
from pipeline.cli.fold_runs import each_part
from pipeline.cli.options import Common, check
from pipeline.errors import EXIT_OK, EXIT_SKIPPED, BadInput, UsageError
from pipeline.names import BASELINES, DEFAULT_HEADS, FILES, FUSED, MEANS, ON_REQUEST, SOURCES, TRAINED, RunFile
from pipeline.runtime.console import log
from pipeline.runtime.device import memory_bytes, n_cores, use_device
from pipeline.storage import atomic, freshness, records
from pipeline.storage.freshness import check_input
from pipeline.storage.protocol import Protocol, read_protocol

if TYPE_CHECKING:
    from pipeline.heads.config import FitConfig
    from pipeline.heads.job import Job


CLUSTER = re.compile(r"(tcp|tls)://[^\s/]+:\d+")
"""Address of a Dask scheduler."""


@dataclasses.dataclass(frozen=True)
class FitHeadsOptions:
    """Which heads, fitted on which rows, and other places for the files."""

    embeddings: Path | None = None
    """Default: embeddings.h5 of the run."""

    heads: tuple[str, ...] = DEFAULT_HEADS
    """Heads to fit next to softmax: svm, xgboost, logistic; fused_svm, fused_xgboost: on colours and texture of
    baselines.h5, too. A frozen encoder has no softmax layer: logistic regression is always fitted in its place."""

    fit_on: Literal["train", "heldout", "crossfit"] | None = None
    """train: on the tiles the network was trained on. heldout: on validation tiles. crossfit: on every tile of the
    training side, each embedded by an inner network that held it out (prepare --inner). Default: train, or
    crossfit where there are inner networks."""

    calibration: Literal["auto", "temperature", "sigmoid", "isotonic"] = "auto"
    """auto: for SVM and XGBoost the method with the lowest log-loss in grouped cross-validation on held-out rows;
    softmax keeps its temperature, which leaves the network's own decisions as they are."""

    decide: Literal["argmax", "balanced"] = "argmax"
    """argmax: the class with the largest score. balanced: probabilities are divided by a power of the class shares
    that cross-validation on held-out rows chooses. It can raise or lower macro-F1; probabilities in the files stay."""

    relative: Literal["none", "group"] = "none"
    """group: heads and baselines also get each feature's difference from the mean over the tiles of its group (slide,
    patient), which needs no label. It harms where a slide holds one class only."""

    baselines: bool = True
    """Also fit the baselines: a head must beat them to be worth its cost."""

    rounds: int = 400
    """XGBoost's most rounds; early stopping on validation rows usually ends sooner."""

    svm_rows: int = 20_000
    """Most rows of an exact SVM, 8 N^2 bytes of kernel values; with more rows its kernel is approximated."""

    memory: str | None = None
    """Memory that the command may take, such as 4GB; default: half of the machine's. Rows that do not fit into it are
    read block by block: SVM by landmarks, XGBoost with its bins on disk, both searched on a sample."""

    cluster: str | None = None
    """Dask cluster that fits the heads: local (processes of this machine, which share --memory) or the address of a
    scheduler, tcp://host:port, whose workers see the run folder; --memory is then for each process."""

    def __post_init__(self) -> None:
        """Check ranges."""
        is_address = self.cluster in (None, "local") or CLUSTER.fullmatch(self.cluster)
        check(is_address, f"--cluster {self.cluster}: local, or tcp://host:port of a Dask scheduler")
        if self.memory is not None:
            memory_bytes(self.memory)
        check(self.svm_rows >= 1, f"--svm-rows {self.svm_rows}: at least 1")
        check(self.rounds >= 1, f"--rounds {self.rounds}: at least 1")
        known = len(set(self.heads)) == len(self.heads) and set(self.heads) <= set(ON_REQUEST)
        check(known, f"--heads {' '.join(self.heads)}: give {', '.join(ON_REQUEST)}, each at most once")

    def config(self, common: Common) -> "FitConfig":
        """Return how heads are fitted by this process on the CPU."""
        from pipeline.heads.config import FitConfig

        return FitConfig(
            fit_on="heldout" if self.fit_on == "heldout" else "train",  # `for_parts` has resolved crossfit
            seed=common.seed,
            jobs=common.threads or n_cores(),
            rounds=self.rounds,
            svm_rows=self.svm_rows,
            calibration=self.calibration,
            relative=self.relative,
            fused=not FUSED.isdisjoint(self.heads),
        )


def for_parts(protocol: Protocol | None, options: FitHeadsOptions) -> FitHeadsOptions:
    """Return the options for the parts of a plan (or the one split): crossfit is held-out fitting of inner networks.

    Raises:
        BadInput: crossfit without inner networks, or another `--fit-on` with them.
    """
    has_inner = protocol is not None and protocol.n_inner > 0
    if options.fit_on == "crossfit" and not has_inner:
        raise BadInput("--fit-on crossfit needs a plan with inner networks: prepare with --inner 3, then train")
    if has_inner and options.fit_on not in (None, "crossfit"):
        raise BadInput(f"--fit-on {options.fit_on}: the plan has inner networks: omit it, or plan without --inner")
    return dataclasses.replace(options, fit_on="heldout") if has_inner else options


def run(common: Common, options: FitHeadsOptions) -> int:
    """Fit the heads of the run, or of every part of its plan and pool their predictions; return the exit code."""
    protocol = read_protocol(common.run)
    if protocol is not None and options.embeddings is not None:
        raise UsageError(
            f"--embeddings: {common.run} is a plan, whose parts have files of their own: give a part's --run"
        )
    of_part = for_parts(protocol, options)
    code = each_part(common, protocol, lambda place: fit(place, of_part), what="fit_heads")
    if protocol is not None:
        pool_parts(common, protocol, options)
    return code


def pool_parts(common: Common, protocol: Protocol, options: FitHeadsOptions) -> None:
    """Write the pooled predictions of each arm of a plan, unless they are current."""
    from pipeline.storage.predictions.pool_folds import pool

    for arm in protocol.arms:
        requested = {name: getattr(options, name) for name in ("fit_on", "decide", "relative")}
        pool(protocol, arm, options=requested | {"heads": list(options.heads)}, force=common.force)
    pooled = records.existing_table(protocol.predictions(protocol.main_arm))
    log.info(f"fit_heads: pooled predictions of {len(protocol.parts)} parts in {pooled}")


def fit(common: Common, options: FitHeadsOptions) -> int:
    """Fit, calibrate and predict, or do nothing if the predictions are current; return the exit code."""
    job = describe(common, options)
    if freshness.reusable_record(job.artifact, restart=common.restart) is None:
        fit_all(common, options, job)
    return EXIT_SKIPPED if job.source.record["details"]["skipped"] else EXIT_OK


def describe(common: Common, options: FitHeadsOptions) -> "Job":
    """Check the inputs of a run, and decide whether its rows fit into memory; no row is read.

    Raises:
        BadArtifact: a file is missing or damaged.
        BadInput: not even some rows fit into memory.
        StaleInput: an input has changed since the embeddings were made.
    """
    from pipeline.heads.job import Job
    from pipeline.heads.memory_budget import decide_memory
    from pipeline.storage import baseline_features
    from pipeline.storage.embeddings import reader
    from pipeline.storage.predictions import csv_table

    source = check_input(options.embeddings or common.run / RunFile.EMBEDDINGS, schema=reader.SCHEMA)
    if not common.force:
        freshness.check_inputs_unchanged(source.path, source.record)
    found = baseline_features.find_baselines(common.run) if options.baselines else None
    baselines = None if found is None else check_input(found, schema=baseline_features.SCHEMA)
    config = options.config(common)
    stated = None if options.memory is None else memory_bytes(options.memory)
    inputs = [source] if baselines is None else [source, baselines]
    memory = decide_memory(stated, source.path, found, config, cluster=options.cluster)
    is_limited = stated is not None and memory.room is not None
    limits = {"memory": stated, "cluster": options.cluster is not None} if is_limited else {}
    is_frozen = reader.read_header(source.path).attrs["encoder"] != TRAINED
    heads = [name for name in ON_REQUEST if name in options.heads or (is_frozen and name == "logistic")]
    names = ("rounds", "calibration", "baselines", "svm_rows", "decide", "relative")
    chosen = {"heads": heads, "fit_on": config.fit_on, **{name: getattr(options, name) for name in names}}
    artifact = records.Artifact(
        path=records.existing_table(common.run / RunFile.PREDICTIONS),
        schema=csv_table.SCHEMA,
        stage="fit_heads",
        options=chosen | limits,
        inputs=[each.path for each in inputs],
        seed=common.seed,
        known={path: sha256 for each in inputs for path, sha256 in each.known.items()},
    )
    return Job(source, baselines, tuple(heads), config, memory, limits, artifact)


def fit_all(common: Common, options: FitHeadsOptions, job: "Job") -> None:
    """Load the rows; search, fit, calibrate and save each head; write the predictions of all.

    Raises:
        StaleInput: the embeddings were changed while heads were fitted on them.
    """
    from pipeline.heads import fit as steps
    from pipeline.heads.job import fit_or_load
    from pipeline.heads.probes import probes
    from pipeline.heads.rows import EMBEDDINGS, load_head_data, normalisation_facts
    from pipeline.storage.predictions import csv_table
    from pipeline.storage.predictions.parquet_writer import require_pyarrow

    device = use_device(common.device, common.threads, deterministic=common.deterministic).type
    described = None if job.baselines is None else job.baselines.path
    config = dataclasses.replace(job.config, device="cuda" if device == "cuda" else "cpu")
    with steps.open_fit_backend(config, job.memory, folder=common.run, cluster=options.cluster) as (config, cache):
        data = load_head_data(job.source.path, described, config, room=job.memory.room, cache=cache)
        rows, n_rows = data.splits[EMBEDDINGS], len(data.every[EMBEDDINGS].y)
        fitted_twice = {"linear"} if "logistic" in job.heads else set()
        baselines = [name for name in BASELINES if options.baselines and SOURCES[name] in data.splits]
        baselines = [name for name in baselines if name not in fitted_twice]
        softmax = steps.fit_softmax(data.plain)
        n_lines = n_rows * (1 + (softmax is not None) + config.fused + len(job.heads) + len(baselines))
        path = csv_table.table_for(common.run / RunFile.PREDICTIONS, n_lines)
        if path.suffix == ".parquet":
            require_pyarrow()  # before hours of fitting
        if job.memory.room is not None:
            log.info(f"fit_heads: {n_rows} rows do not fit into memory: {job.memory.room}")
        heads = {} if softmax is None else {"softmax": steps.calibrate(softmax, config)}
        fitted = functools.partial(fit_or_load, data=data, config=config, job=job, restart=common.restart)
        heads |= {name: fitted(name) for name in job.heads}
        heads |= steps.mean_of("mean", heads)
        for name in baselines:
            heads |= steps.mean_of(name, heads) if name in MEANS else {name: fitted(name)}
        if config.fused:
            heads |= steps.mean_of("fused_mean", heads)
        for made in heads.values():
            made.facts["decide"] = options.decide
        # the chosen gamma belongs to the features that the SVM is fitted on
        chosen = heads["svm"].facts["chosen"] if "svm" in heads and not data.means else None
        probed = probes(data.plain, chosen, seed=common.seed)
        csv_table.write_predictions(path, data.embeddings, steps.predict_all(heads, data))
    job.check_unchanged()
    facts = {name: head.facts for name, head in heads.items()}
    summary = {"classes": data.embeddings.classes, "fit_on": config.fit_on, "heads": facts} | probed
    summary["relative"] = {features: mean.tolist() for features, mean in data.means.items()} or None
    atomic.write_text(common.run / RunFile.HEADS, atomic.to_json(summary))
    details = {name: job.source.record["details"].get(name) for name in ("protocol", "dataset", "credit", "encoder")}
    details |= normalisation_facts(job.source.path, described)
    details |= {"fit_on": config.fit_on, "calibrated_on": "val", "n_train": len(rows["train"].y)}
    details |= {name: getattr(options, name) for name in ("decide", "relative")}
    details["n_skipped"] = len(job.source.record["details"]["skipped"])
    outputs = [common.run / name for name in (RunFile.HEADS, *(FILES[name] for name in heads if name in FILES))]
    records.write_record(dataclasses.replace(job.artifact, path=path), outputs=outputs, details=details)
    log.info(f"fit_heads: predictions of {', '.join(heads)} for {n_rows} tiles in {path}")


main = Command("pipeline.fit_heads", __doc__, FitHeadsOptions, run)
"""Entry point of `python -m pipeline.fit_heads`."""


if __name__ == "__main__":
    raise SystemExit(main())
