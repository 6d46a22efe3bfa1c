"""Fit SVM and XGBoost heads on the training embeddings and predict every row with all three heads.

Reads embeddings.h5; writes heads/svm.skops, heads/xgboost.ubj, heads/heads.json and predictions.csv. Heads are fitted
on train rows; hyper-parameters, early stopping and temperatures come from val rows, which the network was not
trained on; test rows are only predicted. A head that is already there and current is not fitted again.

    python -m pipeline.fit_heads --run reports/mine
"""

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pipeline.cli.command import command
from pipeline.cli.options import Common, check, say
from pipeline.errors import EXIT_OK, EXIT_SKIPPED, BadInput
from pipeline.storage import artifacts, records

if TYPE_CHECKING:
    import numpy as np

    from pipeline.heads.base import Head, Rows
    from pipeline.storage.embeddings import Embeddings

HEAD_FILES: dict[str, str] = {"svm": "heads/svm.skops", "xgboost": "heads/xgboost.ubj"}
"""Head -> its file in the run folder."""


@dataclasses.dataclass(frozen=True)
class FitHeadsOptions:
    """Which heads, and other places for the files."""

    embeddings: Path | None = None
    """Default: embeddings.h5 of the run."""

    heads: tuple[Literal["svm", "xgboost"], ...] = ("svm", "xgboost")
    """Heads to fit beside softmax."""

    rounds: int = 400
    """XGBoost's rounds at most; early stopping on validation rows usually ends sooner."""

    def __post_init__(self) -> None:
        """Check ranges."""
        check(self.rounds >= 1, f"--rounds {self.rounds}: at least 1")
        check(len(set(self.heads)) == len(self.heads), f"--heads {' '.join(self.heads)}: a head is named twice")


@dataclasses.dataclass(frozen=True)
class Fitted:
    """A head with the facts about its fitting that heads.json states."""

    head: "Head"
    facts: dict[str, Any]


def rows_of(embeddings: "Embeddings", chosen: "np.ndarray") -> "Rows":
    """Return the rows where `chosen` (N,) bool holds; features as float32, however they are stored."""
    import numpy as np

    from pipeline.heads.base import Rows

    return Rows(
        features=embeddings.features[chosen].astype(np.float32, copy=False),
        logits=embeddings.logits[chosen],
        y=embeddings.label[chosen].astype(np.int64),
    )


def split_rows(embeddings: "Embeddings", path: Path) -> "dict[str, Rows]":
    """Return the usable rows of train, val and test.

    Raises:
        BadInput: a split is empty, or train lacks a class.
    """
    from pipeline.storage.predictions import usable_rows
    from pipeline.tiles.split import SPLITS

    rows = {}
    for code, name in enumerate(SPLITS):
        chosen = usable_rows(embeddings) & (embeddings.split == code)
        if not chosen.any():
            raise BadInput(f"{path}: no usable {name} rows: run prepare with other fractions or more tiles")
        rows[name] = rows_of(embeddings, chosen)
    absent = sorted(set(range(len(embeddings.classes))) - set(rows["train"].y))
    if absent:
        raise BadInput(f"{path}: no training row of class '{embeddings.classes[absent[0]]}': run prepare again")
    return rows


def softmax_head(embeddings: "Embeddings") -> Fitted:
    """Return the network's own head: trained with the network, computed with the embeddings, so at no cost here."""
    from pipeline.heads.base import Softmax

    n_weights = (embeddings.features.shape[1] + 1) * len(embeddings.classes)
    notes = ["the network's last layer; its logits were computed with the embeddings"]
    return Fitted(Softmax(), {"search": [], "chosen": {}, "notes": notes, "bytes": 4 * n_weights} | times(0, 0))


def fit_svm_head(train: "Rows", val: "Rows", *, seed: int, jobs: int) -> Fitted:
    """Search and fit the SVM."""
    from pipeline.cli.progress import progress
    from pipeline.heads.svm import N_POINTS, SEARCH_ROWS, fit_svm, search_svm

    start = time.perf_counter()
    with progress(N_POINTS, unit="point", label="svm search") as bar:
        search = search_svm(train, val, seed=seed, jobs=jobs, on_point=bar.update)
    searched = time.perf_counter()
    head = fit_svm(train, search.best)
    svc = head.pipeline[-1]
    notes = [f"{int(svc.n_support_.sum())} support vectors of {len(train.y)} rows"]
    if len(train.y) > SEARCH_ROWS:
        notes.append(f"searched on a stratified sample of {SEARCH_ROWS} rows")
    if svc.fit_status_ != 0:
        notes.append("did not converge")
    facts = {"search": search.points, "chosen": search.best, "notes": notes}
    return Fitted(head, facts | times(searched - start, time.perf_counter() - searched))


def fit_xgboost_head(train: "Rows", val: "Rows", *, seed: int, jobs: int, rounds: int, device: str) -> Fitted:
    """Search and fit XGBoost; `device` is "cpu" or "cuda"."""
    from pipeline.cli.progress import progress
    from pipeline.heads.boosting import POINTS, search_boosting

    start = time.perf_counter()
    with progress(len(POINTS), unit="point", label="xgboost search") as bar:
        search, head, seconds = search_boosting(
            train,
            val,
            seed=seed,
            jobs=jobs,
            device=device,
            rounds=rounds,
            on_point=bar.update,
        )
    notes = [] if search.best["rounds"] < rounds else [f"all {rounds} rounds were used: raise --rounds"]
    facts = {"search": search.points, "chosen": search.best, "notes": notes}
    return Fitted(head, facts | times(time.perf_counter() - start - seconds, seconds))


def times(search_seconds: float, fit_seconds: float) -> dict[str, float]:
    """Return the times of a head as heads.json states them."""
    return {"search_seconds": round(search_seconds, 3), "fit_seconds": round(fit_seconds, 3)}


def fitted_head(
    name: str, rows: "dict[str, Rows]", common: Common, options: FitHeadsOptions, *, embeddings: Path
) -> Fitted:
    """Return a head: the one that stands in heads/ if it is current, else a newly fitted and saved one."""
    from pipeline.cli.machine import n_cores, use_device
    from pipeline.heads.base import SCHEMA
    from pipeline.heads.boosting import Boosting
    from pipeline.heads.svm import Svm

    path = common.run / HEAD_FILES[name]
    chosen = {"rounds": options.rounds} if name == "xgboost" else {}
    same: dict[str, Any] = {"schema": SCHEMA, "options": chosen, "inputs": [embeddings], "seed": common.seed}
    if not common.restart and records.is_current(path, **same):
        say(f"fit_heads: {name} is current")
        loaded: Head = Svm.load(path) if name == "svm" else Boosting.load(path)
        return Fitted(loaded, records.read_record(path)["details"])
    how: dict[str, Any] = {"seed": common.seed, "jobs": common.threads or n_cores()}
    device = "cpu"
    if name == "svm":
        fitted = fit_svm_head(rows["train"], rows["val"], **how)
    else:
        device = "cuda" if use_device(common.device, common.threads).type == "cuda" else "cpu"
        fitted = fit_xgboost_head(rows["train"], rows["val"], **how, rounds=options.rounds, device=device)
    fitted.head.save(path)  # type: ignore[attr-defined]
    fitted.facts["bytes"] = path.stat().st_size
    records.write_record(path, stage="fit_heads", details=fitted.facts, device=device, **same)
    say(f"fit_heads: {name} fitted in {fitted.facts['search_seconds'] + fitted.facts['fit_seconds']:.0f} s")
    return fitted


def calibrate(fitted: Fitted, rows: "dict[str, Rows]") -> float:
    """Return the head's temperature, fitted on val rows; its speed on test rows goes into the facts."""
    from pipeline.evaluation.calibration import fit_temperature

    start = time.perf_counter()
    scores = fitted.head.scores(rows["test"])
    seconds = time.perf_counter() - start
    temperature = fit_temperature(fitted.head.scores(rows["val"]), rows["val"].y)
    fitted.facts["calibration"] = {"method": "temperature", "temperature": temperature, "rows": "val"}
    is_stored = scores is rows["test"].logits
    fitted.facts["predict_tiles_per_second"] = None if is_stored else round(len(scores) / seconds, 1)
    return temperature


def run(common: Common, options: FitHeadsOptions) -> int:
    """Fit, calibrate and predict, or do nothing if the predictions are current; return the exit code."""
    from pipeline.storage import embeddings as stored
    from pipeline.storage import predictions

    path = options.embeddings or common.run / "embeddings.h5"
    out = common.run / "predictions.csv"
    record = records.check_artifact(path, schema=stored.SCHEMA)
    if not common.force:
        records.check_fresh(path, record)
    skipped = record["details"]["skipped"]
    chosen = {"heads": list(options.heads), "rounds": options.rounds}
    current: dict[str, Any] = {"schema": predictions.SCHEMA, "options": chosen, "inputs": [path], "seed": common.seed}
    if not common.restart and records.is_current(out, **current):
        say(f"fit_heads: current, {out}")
        return EXIT_SKIPPED if skipped else EXIT_OK

    from pipeline.evaluation.calibration import apply_temperature

    embeddings = stored.read_embeddings(path)
    rows = split_rows(embeddings, path)
    heads: dict[str, Fitted] = {"softmax": softmax_head(embeddings)}
    for name in map(str, options.heads):
        heads[name] = fitted_head(name, rows, common, options, embeddings=path)
    usable = predictions.usable_rows(embeddings)
    every = rows_of(embeddings, usable)
    probabilities = {}
    for name, fitted in heads.items():
        probabilities[name] = apply_temperature(fitted.head.scores(every), calibrate(fitted, rows))
    summary = common.run / "heads" / "heads.json"
    content = {"classes": embeddings.classes, "heads": {name: fitted.facts for name, fitted in heads.items()}}
    artifacts.write_text(summary, artifacts.to_json(content))
    artifacts.write_text(out, predictions.to_csv(embeddings, probabilities))
    details = record["details"]
    records.write_record(
        out,
        **current,
        stage="fit_heads",
        outputs=[summary, *(common.run / HEAD_FILES[name] for name in options.heads)],
        details={
            "protocol": details["protocol"],
            "dataset": details["dataset"],
            "credit": details["credit"],
            "calibrated_on": "val",
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
