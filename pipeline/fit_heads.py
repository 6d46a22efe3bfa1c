"""Fit SVM and XGBoost heads on the embeddings and predict every row with all heads and floors.

Reads embeddings.h5 (and floors.h5, if it is there); writes heads/svm.skops, heads/xgboost.ubj, heads/heads.json and
predictions.csv. Hyper-parameters, early stopping and calibration come from val rows, which the network was not
trained on; test rows are only predicted. A head that is already there and current is not fitted again. Of a plan,
the test rows of all parts are pooled, so that every tile is predicted by networks trained without its fold. Rows that
do not fit into `--memory` are read block by block.

    python -m pipeline.fit_heads --run reports/mine --fit-on heldout
"""

import contextlib
import dataclasses
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pipeline.cli.command import command
from pipeline.cli.machine import memory_bytes, n_cores, use_device
from pipeline.cli.options import Common, check, say
from pipeline.cli.parts import each_part
from pipeline.errors import EXIT_OK, EXIT_SKIPPED, BadArtifact, BadInput, UsageError
from pipeline.heads.cluster import connected, shares
from pipeline.heads.names import FILES
from pipeline.storage import artifacts, records
from pipeline.storage import protocol as protocols

if TYPE_CHECKING:
    from pipeline.heads.base import Head, Rows
    from pipeline.heads.fitting import FitOn, Fitted, Setting
    from pipeline.storage.predictions import Answer


CLUSTER = re.compile(r"(tcp|tls)://[^\s/]+:\d+")
"""Address of a Dask scheduler."""


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

    floors: bool = True
    """Also fit the floors: what a head must beat to be worth its cost."""

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


def floors_file(run: Path) -> Path | None:
    """Return floors.h5 of the run, or of the plan that the run is a part of; None if there is none."""
    places = [run, *([run.parent.parent] if run.parent.name == protocols.FOLDER else [])]
    return next((place / "floors.h5" for place in places if (place / "floors.h5").is_file()), None)


def fitted_head(
    name: str,
    rows: "dict[str, Rows]",
    setting: "Setting",
    common: Common,
    options: FitHeadsOptions,
    *,
    source: Path,
    within: dict[str, int],
) -> "tuple[Head, dict[str, Any]]":
    """Return a head and its facts: the one that stands in heads/ if it is current, else a newly fitted and saved one.

    Args:
        name: svm or xgboost.
        rows: of train, val and test.
        setting: how heads are fitted.
        common: the run.
        options: of this stage.
        source: the embeddings file.
        within: the stated memory, and whether a cluster fits, if rows do not fit into that memory.
    """
    from pipeline.heads import fitting
    from pipeline.heads.base import SCHEMA
    from pipeline.heads.boosting import Boosting
    from pipeline.heads.svm import Svm

    path = common.run / FILES[name]
    chosen: dict[str, Any] = {"fit_on": setting.fit_on, "calibration": options.calibration} | within
    chosen |= {"rounds": setting.rounds} if name == "xgboost" else {"svm_rows": setting.svm_rows}
    same: dict[str, Any] = {"schema": SCHEMA, "options": chosen, "inputs": [source], "seed": common.seed}
    if not common.restart and records.is_current(path, **same):
        say(f"fit_heads: {name} is current")
        return (Svm if name == "svm" else Boosting).load(path), records.read_record(path)["details"]
    fitted = fitting.fit_svm_head(rows, setting) if name == "svm" else fitting.fit_xgboost_head(rows, setting)
    fitted.head.save(path)  # type: ignore[attr-defined]
    facts = calibrated(fitted, setting, options.calibration) | {"bytes": path.stat().st_size}
    device = setting.device if name == "xgboost" else "cpu"
    records.write_record(path, stage="fit_heads", details=facts, device=device, **same)
    say(f"fit_heads: {name} fitted in {facts['search_seconds'] + facts['fit_seconds']:.0f} s")
    return fitted.head, facts


def calibrated(fitted: "Fitted", setting: "Setting", method: str) -> dict[str, Any]:
    """Return a head's facts with its calibration, fitted on held-out scores of the val rows."""
    from pipeline.evaluation.calibration_choice import choose_calibration

    choice = choose_calibration(
        fitted.held_scores,
        fitted.held_y,
        list(fitted.held_groups),
        seed=setting.seed,
        method=method,  # type: ignore[arg-type]
    )
    how = dataclasses.asdict(choice.calibration) | {"rows": "val", "unit": choice.unit, "nll": choice.nll}
    return fitted.facts | {"calibration": how}


def answer_of(head: "Head", facts: dict[str, Any], every: "Rows") -> "Answer":
    """Return what a head says of all rows; its speed goes into the facts.

    Args:
        head: fitted.
        facts: its entry of heads.json.
        every: M rows with the features that the head takes.
    """
    from pipeline.heads.saved import decide
    from pipeline.heads.stored import scores_of

    start = time.perf_counter()
    scores = scores_of(head, every)
    is_stored = scores is every.logits
    facts["predict_tiles_per_second"] = None if is_stored else round(len(every.y) / (time.perf_counter() - start), 1)
    return decide(facts["calibration"], scores)


def fitted_floors(
    sources: "dict[str, dict[str, Rows]]", setting: "Setting", options: FitHeadsOptions
) -> "dict[str, tuple[Head, dict[str, Any]]]":
    """Return the floors and their facts, fitted and calibrated as the heads are."""
    from pipeline.cli.progress import progress
    from pipeline.heads.floors import SOURCES, fit_floors

    with progress(sum(source in sources for source in SOURCES.values()), unit="floor", label="floors") as bar:
        floors = fit_floors(sources, setting, on_floor=bar.update)
    return {name: (fitted.head, calibrated(fitted, setting, options.calibration)) for name, fitted in floors.items()}


def for_parts(protocol: protocols.Protocol | None, options: FitHeadsOptions) -> FitHeadsOptions:
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
    protocol = protocols.read_protocol(common.run)
    if protocol is not None and options.embeddings is not None:
        raise UsageError(
            f"--embeddings: {common.run} is a plan, whose parts have files of their own: give a part's --run"
        )
    how = for_parts(protocol, options)
    code = each_part(common, lambda place: fit(place, how), what="fit_heads")
    if protocol is not None:
        from pipeline.storage.pooling import pool

        for arm in protocol.arms:
            asked = {"heads": list(options.heads), "fit_on": options.fit_on}
            pool(protocol, arm, options=asked, force=common.force)
        pooled = records.standing(protocol.predictions(protocol.main_arm))
        say(f"fit_heads: pooled predictions of {len(protocol.parts)} parts in {pooled}")
    return code


def fit(common: Common, options: FitHeadsOptions) -> int:
    """Fit, calibrate and predict, or do nothing if the predictions are current; return the exit code."""
    from pipeline.storage import embeddings as stored
    from pipeline.storage import predictions

    path = options.embeddings or common.run / "embeddings.h5"
    out = records.standing(common.run / "predictions.csv")
    record = records.check_artifact(path, schema=stored.SCHEMA)
    if not common.force:
        records.check_fresh(path, record)
    skipped = record["details"]["skipped"]
    fit_on: FitOn = "heldout" if options.fit_on == "heldout" else "train"
    chosen = {"heads": list(options.heads), "rounds": options.rounds, "fit_on": fit_on}
    chosen |= {"calibration": options.calibration, "floors": options.floors, "svm_rows": options.svm_rows}
    floors = floors_file(common.run) if options.floors else None
    stated = None if options.memory is None else memory_bytes(options.memory)
    how: dict[str, Any] = {"fit_on": fit_on, "svm_rows": options.svm_rows}
    cores = common.threads or n_cores()
    room = None
    if stated is not None:
        from pipeline.heads import rows as material

        embeddings = stored.read_embeddings(path, with_features=False)
        room = material.room_for(shares(stated, cores, options.cluster).each, embeddings, path, floors, **how)
    within = {} if room is None or stated is None else {"memory": stated, "cluster": options.cluster is not None}
    chosen |= within
    inputs = [path, *([floors] if floors is not None else [])]
    current: dict[str, Any] = {"schema": predictions.SCHEMA, "options": chosen, "inputs": inputs, "seed": common.seed}
    if not common.restart and records.is_current(out, **current):
        say(f"fit_heads: current, {out}")
        return EXIT_SKIPPED if skipped else EXIT_OK

    from pipeline.heads import budget, fitting
    from pipeline.heads import rows as material
    from pipeline.heads.floors import SOURCES
    from pipeline.heads.probes import separability, source_probe
    from pipeline.storage.large_predictions import require_pyarrow

    device = use_device(common.device, common.threads, deterministic=common.deterministic).type
    split_up = shares(budget.free_share() if stated is None else stated, cores, options.cluster)
    if stated is None:
        embeddings = stored.read_embeddings(path, with_features=False)
        room = material.room_for(split_up.each, embeddings, path, floors, **how)
    with contextlib.ExitStack() as stack:
        pool = cache = None
        if room is not None or options.cluster is not None:
            cache = stack.enter_context(artifacts.temporary_folder(common.run))
            if options.cluster is not None:
                pool = stack.enter_context(connected(options.cluster, split_up, folder=cache))
        setting = fitting.Setting(
            fit_on,
            common.seed,
            cores,
            device="cuda" if device == "cuda" and room is None and pool is None else "cpu",
            rounds=options.rounds,
            svm_rows=options.svm_rows if room is None else room.svm_rows,
            pool=pool,
        )
        usable = predictions.usable_rows(embeddings)
        n_most = int(usable.sum()) * (1 + len(options.heads) + len(SOURCES) * options.floors)
        if n_most > predictions.LARGE_LINES:
            require_pyarrow()  # before hours of fitting
        if room is None or cache is None:
            embeddings = stored.read_embeddings(path)
            every = material.rows_of(embeddings, usable)
        else:
            if changed := records.damaged_outputs(path, record):  # shards, whose bytes are else read with all rows
                raise BadArtifact(f"{path.parent / changed[0]}: missing or changed: merge {path.name} again")
            say(
                f"fit_heads: {len(usable)} rows do not fit into memory: they are read {room.block_rows} at once, and "
                f"searches take up to {room.sample_rows} of a split"
            )
            every = material.stored_rows_of(embeddings, usable, path, room=room, cache=cache)
        split = embeddings.split[usable]
        rows = material.split_rows(every, split, path, fit_on=fit_on)
        softmax = fitting.fit_softmax(rows)
        method = "temperature" if options.calibration == "auto" else options.calibration
        heads = {"softmax": (softmax.head, calibrated(softmax, setting, method))}
        for name in map(str, options.heads):
            heads[name] = fitted_head(name, rows, setting, common, options, source=path, within=within)
        sources = material.floor_rows(embeddings, usable, every, floors) if options.floors else {}
        parted = {name: rows if own is every else material.parts(own, split) for name, own in sources.items()}
        heads |= fitted_floors(parted, setting, options)
        params = heads["svm"][1]["chosen"] if "svm" in heads else None
        probe = source_probe(rows["val"], params, seed=common.seed)
        separable = {name: separability(rows[name]) for name in ("train", "val")}
        out = predictions.table_for(common.run / "predictions.csv", int(usable.sum()) * len(heads))
        answers = (
            (name, answer_of(head, facts, sources.get(SOURCES.get(name, ""), every)))
            for name, (head, facts) in heads.items()
        )
        predictions.write_predictions(out, embeddings, answers)  # last: nothing is read for long any more
    content = {
        "classes": embeddings.classes,
        "fit_on": fit_on,
        "heads": {name: facts for name, (_, facts) in heads.items()},
        "source_probe": probe,
        "separability": separable,
    }
    summary = common.run / "heads" / "heads.json"
    artifacts.write_text(summary, artifacts.to_json(content))
    details = record["details"]
    records.write_record(
        out,
        **current,
        stage="fit_heads",
        outputs=[summary, *(common.run / FILES[name] for name in options.heads)],
        details={
            "protocol": details["protocol"],
            "dataset": details["dataset"],
            "credit": details["credit"],
            "fit_on": fit_on,
            "calibrated_on": "val",
            "n_train": len(rows["train"].y),
            "n_skipped": len(skipped),
        },
    )
    say(f"fit_heads: predictions of {', '.join(heads)} for {int(usable.sum())} tiles in {out}")
    return EXIT_SKIPPED if skipped else EXIT_OK


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `python -m pipeline.fit_heads`."""
    stages = {"fit_heads": FitHeadsOptions}
    return command("pipeline.fit_heads", __doc__, stages, lambda common, o: run(common, o["fit_heads"]), argv)


if __name__ == "__main__":
    raise SystemExit(main())
