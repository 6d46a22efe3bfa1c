"""Every engine says what the network itself says in plain fp32, row by row, and leaves the network as it was."""

import copy
import dataclasses
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.errors import PipelineError, UsageError
from pipeline.network.engines import ENGINES, Engine, build_engine, default_batch
from pipeline.network.engines.base import filled
from pipeline.network.engines.check import agree, in_plain_fp32
from pipeline.network.engines.fold_batchnorm import Embed, folded
from pipeline.network.engines.openvino_engine import core
from pipeline.network.engines.openvino_graph import graph_of
from pipeline.network.engines.torch_engine import TorchEngine
from pipeline.network.model_file import Model
from pipeline.network.orientation import orient
from pipeline.network.resnet import ResNet

CPU = torch.device("cpu")
BATCH = 4
EVERY = [
    *((name, precision) for name in ENGINES if name != "compiled" for precision in ENGINES[name]),
    pytest.param("compiled", "bf16", marks=pytest.mark.slow),  # torch takes long for its kernels; fp32: the same code
]


@pytest.fixture(scope="module")
def build(model: Model, tiles: torch.Tensor) -> Iterator[object]:
    """`build(name, precision)`: that engine, the same one for all tests; skips what this machine lacks."""
    torch.set_num_threads(1)
    built: dict[tuple[str, str], Engine] = {}

    def get(name: str, precision: str) -> Engine:
        if name == "openvino":
            pytest.importorskip("openvino")
            if precision == "int8":
                pytest.importorskip("nncf")
            if precision == "bf16" and "BF16" not in core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
                pytest.skip("no bf16 instructions")
        if name == "compiled" and not (shutil.which("c++") or shutil.which("g++")):
            pytest.skip("no C++ compiler")
        if (name, precision) not in built:
            built[name, precision] = build_engine(
                name, model, device=CPU, precision=precision, batch=BATCH, calibration=tiles
            )
        return built[name, precision]

    return get


def everything(engine: Engine, tiles: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    found = list(engine.run(tiles.split(BATCH)))
    return np.concatenate([f for f, _ in found]), np.concatenate([z for _, z in found])


@pytest.mark.parametrize("in_flight", [1, 3])
def test_views_are_means_over_the_eight_orientations(model: Model, tiles: torch.Tensor, in_flight: int) -> None:
    engine = TorchEngine(model, device=CPU, precision="fp32", batch=BATCH)
    each = [everything(engine, orient(tiles, view).contiguous()) for view in range(8)]
    assert not np.allclose(each[0][0], each[1][0])
    engine.views, engine.in_flight = 8, in_flight
    found = everything(engine, tiles)
    for i in range(2):
        np.testing.assert_allclose(found[i], np.mean([one[i] for one in each], axis=0), rtol=1e-5, atol=1e-6)
        assert found[i].dtype == np.float32
    lying = everything(engine, orient(tiles, 5))
    np.testing.assert_allclose(lying[0], found[0], rtol=1e-4, atol=1e-5)


def test_views_that_nobody_asks_for_leave_no_work_behind(model: Model, tiles: torch.Tensor) -> None:
    engine = TorchEngine(model, device=CPU, precision="fp32", batch=BATCH)
    engine.views, engine.in_flight = 8, 3
    started, finish = [], engine.finish
    engine.finish = lambda one: (started.append(one), finish(one))[1]  # type: ignore[method-assign]
    rows = engine.run(tiles.split(BATCH))
    next(rows)
    rows.close()  # type: ignore[attr-defined]
    assert len(started) == 8 + 2


@pytest.mark.parametrize(("name", "precision"), EVERY)
def test_an_engine_says_what_the_network_says(
    build: object, model: Model, tiles: torch.Tensor, name: str, precision: str
) -> None:
    engine = build(name, precision)  # type: ignore[operator]
    assert (engine.name, engine.precision, engine.batch) == (name, precision, BATCH)
    found, reference = everything(engine, tiles), in_plain_fp32(model, tiles)
    for got, want in zip(found, reference, strict=True):
        assert got.shape == want.shape
        assert got.dtype == np.float32
        tolerance = {"fp32": 1e-5, "bf16": 0.03, "int8": 0.2}[precision]
        assert np.linalg.norm(got - want) < tolerance * np.linalg.norm(want)
    # in order: each row is nearest to its own
    apart = np.linalg.norm(found[0][:, None] - reference[0][None], axis=2)
    assert (apart.argmin(axis=1) == np.arange(len(tiles))).all()
    if precision != "int8":
        assert agree(found, reference).passes
    for f, z in engine.run([tiles[:2]]):
        f[0], z[0] = 0, 0  # the caller's to change


@pytest.mark.parametrize(("name", "precision"), [("torch", "fp32"), ("torch", "bf16"), ("openvino", "bf16")])
def test_a_row_does_not_depend_on_how_many_tiles_come_with_it(
    build: object, tiles: torch.Tensor, name: str, precision: str
) -> None:
    engine = build(name, precision)  # type: ignore[operator]
    whole = everything(engine, tiles)
    for one, all_ in zip(everything(engine, tiles[:9]), whole, strict=True):
        np.testing.assert_array_equal(one, all_[:9])


@pytest.mark.parametrize("name", ["torch", "openvino"])
def test_a_run_that_is_given_up_leaves_the_engine_usable(build: object, tiles: torch.Tensor, name: str) -> None:
    engine = build(name, "fp32")  # type: ignore[operator]
    whole = everything(engine, tiles)
    for _ in range(3):
        run = engine.run(tiles.split(BATCH))
        next(run)
        run.close()
    np.testing.assert_array_equal(everything(engine, tiles)[0], whole[0])


@pytest.mark.parametrize("name", ["torch", "openvino"])
def test_no_more_batches_are_taken_than_are_in_flight(build: object, tiles: torch.Tensor, name: str) -> None:
    """Memory does not grow with the number of tiles."""
    engine, taken = build(name, "fp32"), 0  # type: ignore[operator]

    def batches() -> Iterator[torch.Tensor]:
        nonlocal taken
        for _ in range(6):
            taken += 1
            yield tiles[:BATCH]

    for given, _ in enumerate(engine.run(batches())):
        assert taken <= given + engine.in_flight


@pytest.mark.parametrize(("name", "precision"), [("torch", "fp32"), ("torch", "bf16"), ("openvino", "fp32")])
def test_the_models_own_network_stays_as_it_was(build: object, model: Model, name: str, precision: str) -> None:
    network = model.network
    before = {key: value.clone() for key, value in network.state_dict().items()}
    kinds = [type(module) for module in network.modules()]
    build(name, "fp32")  # type: ignore[operator]
    build_engine(name, model, device=CPU, precision=precision, batch=2)
    assert [type(module) for module in network.modules()] == kinds
    assert all(parameter.requires_grad for parameter in network.parameters())
    after = network.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[key], value) and after[key].dtype == value.dtype for key, value in before.items())


def test_folding_leaves_no_normalisation_and_refuses_what_it_does_not_know(model: Model) -> None:
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded(model.network).modules())
    strange = copy.deepcopy(model.network)
    strange.layer1.add_module("late", nn.BatchNorm2d(64))
    with pytest.raises(ValueError, match="follows no convolution"):
        folded(strange)


def test_a_batch_is_filled_up_with_empty_tiles(tiles: torch.Tensor) -> None:
    full = filled(tiles[:3], 5)
    assert full.shape == (5, 3, 32, 32)
    assert torch.equal(full[:3], tiles[:3])
    assert not full[3:].any()
    assert full.is_contiguous(memory_format=torch.channels_last)
    assert filled(tiles[:5], 5).is_contiguous(memory_format=torch.channels_last)
    with pytest.raises(ValueError, match="6 tiles for an engine of batches of 5"):
        filled(tiles[:6], 5)


@pytest.mark.parametrize(
    ("device", "px", "batch"),
    [
        *[("cpu", 96, 16), ("cpu", 1024, 16), ("mps", 224, 16), ("cuda", 96, 256), ("cuda:1", 224, 256)],
        *[("cuda", 225, 128), ("cuda", 512, 32), ("cuda", 1024, 8), ("cuda", 8000, 1)],
    ],
)
def test_the_batch_follows_from_device_and_tile_size(device: str, px: int, batch: int) -> None:
    assert default_batch(torch.device(device), px) == batch


@pytest.mark.parametrize(("library", "precision"), [("openvino", "fp32"), ("nncf", "int8")])
def test_a_missing_library_is_one_line_with_the_remedy(
    model: Model, tiles: torch.Tensor, monkeypatch: pytest.MonkeyPatch, library: str, precision: str
) -> None:
    if library == "nncf":
        pytest.importorskip("openvino")
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(PipelineError, match=rf"needs the library {library}.*pip install 'histoheads\[cpu\]'") as caught:
        build_engine("openvino", model, device=CPU, precision=precision, batch=2, calibration=tiles)
    assert "\n" not in str(caught.value)


def test_int8_needs_calibration_tiles(model: Model) -> None:
    pytest.importorskip("openvino")
    pytest.importorskip("nncf")
    with pytest.raises(PipelineError, match="needs training tiles to calibrate with"):
        build_engine("openvino", model, device=CPU, precision="int8", batch=2)


@pytest.mark.parametrize(("name", "precision"), [("tensorrt", "fp32"), ("torch", "int8"), ("openvino", "fp8")])
def test_an_unknown_engine_or_precision_is_a_usage_error(model: Model, name: str, precision: str) -> None:
    with pytest.raises(UsageError, match="known are torch: fp32, bf16; compiled: fp32, bf16; openvino"):
        build_engine(name, model, device=CPU, precision=precision, batch=2)


@pytest.mark.parametrize(("name", "device"), [("openvino", "cuda"), ("compiled", "mps")])
def test_an_engine_that_does_not_run_on_the_device(model: Model, name: str, device: str) -> None:
    with pytest.raises(PipelineError, match=f"--engine {name} does not run on {device}: give --device cpu"):
        build_engine(name, model, device=torch.device(device), precision="fp32", batch=2)


def test_a_machine_that_cannot_compile_is_told_in_one_line(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object, **options: object) -> object:
        def call(pixels: torch.Tensor) -> None:
            raise RuntimeError("No working C++ compiler found:\n(None, 'g++')")

        return call

    monkeypatch.setattr(torch, "compile", broken)
    with pytest.raises(PipelineError, match=r"does not work here \(No working C\+\+ compiler found: .*give another"):
        build_engine("compiled", model, device=CPU, precision="fp32", batch=2)


@pytest.mark.parametrize("bottleneck", [False, True])
def test_the_graph_for_openvino_is_that_of_torch_export_to_the_bit(
    model: Model, tiles: torch.Tensor, *, bottleneck: bool
) -> None:
    openvino = pytest.importorskip("openvino")
    torch.manual_seed(0)
    network = ResNet((1, 1, 1, 1), bottleneck=bottleneck, n_classes=3).eval()
    embed = Embed(dataclasses.replace(model, network=network))
    batch = tiles[:BATCH].contiguous()
    exported = openvino.convert_model(torch.export.export(embed, (batch,)))
    exported.reshape(list(batch.shape))
    rows = []
    for graph in (exported, graph_of(openvino, embed, BATCH, batch.shape[-1])):
        outputs = core().compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})([batch.numpy()])
        rows.append(list(outputs.values()))
    for expected, found in zip(*rows, strict=True):
        assert np.array_equal(expected, found)


def test_a_network_that_openvino_does_not_take_is_told_in_one_line(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    openvino = pytest.importorskip("openvino")

    class OpConversionFailure(Exception):
        """OpenVINO's own are no RuntimeErrors either."""

    def broken(*args: object) -> None:
        raise OpConversionFailure("No conversion rule found:\naten.conv9d")

    monkeypatch.setattr(openvino, "Model", broken)
    with pytest.raises(PipelineError, match=r"\(No conversion rule found: aten.conv9d\): give another --engine"):
        build_engine("openvino", model, device=CPU, precision="fp32", batch=2)


@pytest.mark.slow
def test_compiling_changes_no_setting_of_the_process(build: object) -> None:
    before = os.environ.get("TORCHINDUCTOR_CACHE_DIR")
    build("compiled", "bf16")  # type: ignore[operator]
    assert torch._inductor.config.freezing is False
    assert os.environ.get("TORCHINDUCTOR_CACHE_DIR") == before


ALONE = """
import sys
from pipeline.runtime.caches import temporary_caches
with temporary_caches():
    import torch
    from pipeline.network.engines import build_engine
    from pipeline.network.resnet import build_network
    from pipeline.network.model_file import Model
    name, precision = sys.argv[1:]
    info = {"arch": "resnet10", "preprocess": {"size": 32, "mean": [0.5] * 3, "std": [0.5] * 3}}
    model = Model(build_network("resnet10", n_classes=2, seed=0).eval(), info, {})
    tiles = torch.zeros(4, 3, 32, 32, dtype=torch.uint8)
    build_engine(name, model, device=torch.device("cpu"), precision=precision, batch=4, calibration=tiles)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("name", "precision"), [("openvino", "int8"), ("compiled", "fp32")])
def test_an_engine_leaves_nothing_outside_the_run_folder(tmp_path: Path, name: str, precision: str) -> None:
    """P5: no identifier for telemetry in the home folder, no kernels in the temporary one; it prints no results."""
    if name == "openvino":
        pytest.importorskip("openvino")
        pytest.importorskip("nncf")
    environment = {key: value for key, value in os.environ.items() if key not in ("CI", "TF_BUILD", "JENKINS_URL")}
    environment |= dict.fromkeys(("HOME", "TMPDIR"), str(tmp_path)) | {"OMP_NUM_THREADS": "1"}
    environment.pop("TORCHINDUCTOR_CACHE_DIR", None)
    done = subprocess.run(
        [sys.executable, "-c", ALONE, name, precision],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[3],
        env=environment,
    )
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert done.stdout == ""


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize(("name", "precision"), [(n, p) for n in ("torch", "compiled") for p in ("fp32", "bf16")])
def test_on_cuda_all_batches_arrive_whole_and_in_order(
    model: Model, tiles: torch.Tensor, name: str, precision: str
) -> None:
    engine = build_engine(name, model, device=torch.device("cuda"), precision=precision, batch=BATCH)
    many = tiles.repeat(20, 1, 1, 1)
    assert agree(everything(engine, many), in_plain_fp32(model, many)).passes


# -- full memory ---------------------------------------------------------------------------------------------------


def test_a_full_memory_is_one_line_and_never_a_smaller_batch(model: Model, tiles: torch.Tensor) -> None:
    """Rows of a smaller pass would differ by rounding, depending on what else runs on the device (P6)."""
    engine = build_engine("torch", model, device=CPU, precision="fp32", batch=4)
    assert isinstance(engine, TorchEngine)
    sizes: list[int] = []

    def full(pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        sizes.append(len(pixels))
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    engine.embed = full
    with pytest.raises(PipelineError, match=r"4 tiles of 32 px: .* --embed-batch") as caught:
        everything(engine, tiles)
    assert "\n" not in str(caught.value)
    assert sizes == [4]
