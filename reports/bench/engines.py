"""Measure every engine by precision and batch size, and its agreement with fp32; write <machine>-engines.csv and .md.

    python reports/bench/engines.py                                       a network trained for some steps on demo tiles
    python reports/bench/engines.py --model reports/mine/model.safetensors          a run's network on its own tiles
    python reports/bench/engines.py --engines torch openvino-bf16 --batches 16 64

At the first batch size, all engines are measured and their outputs compared.
"""

import argparse
import time
from pathlib import Path

import numpy as np
from inputs import demo_inputs, run_inputs

from pipeline.benchmark.config import BenchConfig, interleaved
from pipeline.benchmark.embedding import PLAIN_BATCH, PlainLoop, rate, split_into_batches, sustained
from pipeline.benchmark.hardware import machine_slug
from pipeline.benchmark.hardware_limits import peak_name, peaks
from pipeline.benchmark.measurement import PLAIN, Measurement, median_ratio, to_csv
from pipeline.benchmark.report_page import facts, table_of
from pipeline.errors import PipelineError
from pipeline.heads.base import Rows
from pipeline.heads.svm.classifier import fit_svm
from pipeline.markup.document import Bullets, Document, Section, to_markdown
from pipeline.network.engines import ENGINES, build_engine
from pipeline.network.engines.check import agree, in_plain_fp32
from pipeline.network.engines.samples import N_CALIBRATION
from pipeline.network.resnet import flops_per_tile
from pipeline.runtime.device import n_cores, use_device
from pipeline.storage import atomic

BATCHES = {"cpu": (16, 4, 8, 32, 64), "cuda": (256, 64, 512)}

LONGEST_START_S = 8.0
"""An engine that takes longer to start is measured at the first batch size only."""


def start_engines(config, inputs, keys, batch, remarks):
    """Return (name, precision) -> (engine, seconds that it took to start), and say which are missing."""
    found = {}
    for name, precision in keys:
        start = time.perf_counter()
        calibration = inputs.train.pixels[:N_CALIBRATION] if precision == "int8" else None
        options = {"device": config.device, "precision": precision, "batch": batch, "calibration": calibration}
        try:
            engine = build_engine(name, inputs.model, **options)
        except PipelineError as error:
            remarks.append(f"Not measured: {name} {precision} ({error}).")
            continue
        rate(engine, split_into_batches(inputs.held_out.pixels, batch), 1)
        found[name, precision] = engine, time.perf_counter() - start
        print(f"{name} {precision}: started for batches of {batch}", flush=True)
    return found


def measure_engines(config, inputs, keys, sizes, remarks):
    """Yield the rates of all engines by batch size, of the plain loop and of the limits, and the engines' agreement."""
    flops, pixels = flops_per_tile(inputs.model.network, inputs.model.preprocess.size), inputs.held_out.pixels
    plain_rate = sustained(PlainLoop(inputs.model, config.device), split_into_batches(pixels, PLAIN_BATCH))
    for size in sizes:
        started = start_engines(config, inputs, keys, size, remarks)
        batches = split_into_batches(pixels, size)
        contenders = peaks(config) | {PLAIN: plain_rate}
        contenders |= {f"{name} {p}": sustained(engine, batches) for (name, p), (engine, _) in started.items()}
        found = interleaved(contenders, rounds=config.rounds, part="engines")
        limits = {p: [1e9 * value / flops for value in found[peak_name(p)]] for p in config.precisions}
        yield Measurement("embed", PLAIN, "tiles/s", tuple(found[PLAIN]), "fp32", PLAIN_BATCH)
        for precision, values in limits.items():
            yield Measurement("embed", "limit", "tiles/s", tuple(values), precision)
        for (name, precision), (_, seconds) in started.items():
            values = found[f"{name} {precision}"]
            share = median_ratio(values, limits[precision]) if precision in limits else None
            compared = median_ratio(values, found[PLAIN]), share, f"started in {seconds:.1f} s"
            yield Measurement("embed", name, "tiles/s", tuple(values), precision, size, *compared)
        if size == sizes[0]:
            yield from compare(inputs, {key: engine for key, (engine, _) in started.items()})
            keys = [key for key, (_, seconds) in started.items() if seconds <= LONGEST_START_S]
            remarks += [f"Measured at one batch size: {' '.join(key)}." for key in started if key not in keys]


def compare(inputs, engines):
    """Yield how far the outputs of each engine agree with those of the network in plain fp32.

    By the features' cosine, by the class of the largest logit, and by the accuracy of an SVM with scikit-learn's usual
    parameters, fitted on fp32 features of the training tiles.
    """
    train, held_out = inputs.train, inputs.held_out
    fitted = in_plain_fp32(inputs.model, train.pixels)
    head = fit_svm(Rows(*fitted, train.y), {"kernel": "rbf", "C": 1.0, "gamma": 1 / fitted[0].shape[1]})

    def accuracy(output):
        return float((head.scores(Rows(*output, held_out.y)).argmax(axis=1) == held_out.y).mean())

    reference = in_plain_fp32(inputs.model, held_out.pixels)
    expected = accuracy(reference)
    for (name, precision), engine in engines.items():
        parts = list(engine.run(held_out.pixels.split(engine.batch)))
        output = np.concatenate([f for f, _ in parts]), np.concatenate([z for _, z in parts])
        found = agree(output, reference)
        differ = int((output[1].argmax(axis=1) != reference[1].argmax(axis=1)).sum())
        rows = [
            ("cosine", found.cosine, ""),
            ("share of tiles", 1 - differ / len(held_out.y), f"{differ} of {len(held_out.y)} differ; {found}"),
            ("points", 100 * (accuracy(output) - expected), f"accuracy on fp32 features {100 * expected:.1f} %"),
        ]
        for unit, value, note in rows:
            yield Measurement("agreement", name, unit, (value,), precision, engine.batch, note=note)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--engines", nargs="*", default=[], help="with or without a precision: torch openvino-bf16")
    parser.add_argument("--batches", type=int, nargs="*", help="tiles per batch")
    parser.add_argument("--model", type=Path, help="model.safetensors of a run, next to its manifest")
    parser.add_argument("--arch", default="resnet50")
    parser.add_argument("--tile-px", type=int, default=150)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=n_cores())
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it works")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    args = parser.parse_args()
    device = use_device(args.device, args.threads)
    config = BenchConfig(device, args.threads, args.rounds, seed=0, is_quick=args.quick)
    demo = {"arch": args.arch, "tile_px": args.tile_px}
    inputs = run_inputs(args.model, config) if args.model else demo_inputs(config, **demo)
    keys = [(name, precision) for name, precisions in ENGINES.items() for precision in precisions]
    keys = [key for key in keys if not args.engines or {key[0], "-".join(key)} & {*args.engines}]
    remarks = [f"The network: {inputs.origin}."]
    sizes = args.batches or BATCHES.get(device.type, BATCHES["cpu"])
    table = list(measure_engines(config, inputs, keys, sizes, remarks))
    path = args.out / f"{machine_slug(device, args.threads)}-engines.csv"
    sections = [Section("How to read this", [Bullets(remarks)])]
    for part, heading in (("embed", "Rates"), ("agreement", "Agreement with fp32")):
        sections.append(Section(heading, [table_of([row for row in table if row.part == part])]))
    sections.append(Section("Machine", [Bullets(facts(config, {})[:-1])]))
    atomic.write_text(path, to_csv(table))
    atomic.write_text(path.with_suffix(".md"), to_markdown(Document(f"Engines: {path.stem}", sections)))
    print(path)


if __name__ == "__main__":
    main()
