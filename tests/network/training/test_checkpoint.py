"""What a checkpoint holds, which training it belongs to, and how it can be damaged."""

import random
from pathlib import Path

import pytest
import torch

from pipeline.errors import BadArtifact, StaleInput
from pipeline.network.training.checkpoint import Checkpoint, Progress

OPTIONS = {"lr": 1e-3, "precision": "fp32"}


def begin(folder: Path, *, seed: int = 0, **identity: object) -> Checkpoint:
    """Return the checkpoint of a small network whose weights depend on `seed`, one step taken."""
    torch.manual_seed(seed)
    network = torch.nn.Linear(64, 64)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3, fused=True)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    network(torch.ones(1, 64)).sum().backward()
    optimizer.step()
    known = {"manifest": "m", "options": OPTIONS, "seed": 0, "precision": "fp32", **identity}
    parts = {"network": network, "optimizer": optimizer, "schedule": schedule}
    return Checkpoint(folder / "checkpoint.pt", identity=known, parts=parts)


def state(checkpoint: Checkpoint) -> dict[str, torch.Tensor]:
    """Return copies of all tensors of a checkpoint's parts."""
    found = {name: value.clone() for name, value in checkpoint.parts["network"].state_dict().items()}
    for row, values in checkpoint.parts["optimizer"].state_dict()["state"].items():
        found |= {f"{row}.{name}": value.clone() for name, value in values.items()}
    return found


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    """Tell whether two states are equal to the last bit."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_what_was_written_is_read(tmp_path: Path) -> None:
    first, second = begin(tmp_path), begin(tmp_path, seed=1)
    assert second.read() is None
    assert not same(state(first), state(second))
    progress = Progress(epoch=1, step=2, loss_sum=0.1, history=[{"epoch": 1}])
    first.write(progress, {"weight": torch.ones(3)})
    found = second.read()
    assert found is not None
    assert found[0] == progress
    assert torch.equal(found[1]["weight"], torch.ones(3))
    assert same(state(first), state(second))


def test_it_holds_tensors_and_plain_values_only(tmp_path: Path) -> None:
    """P3."""
    begin(tmp_path).write(Progress(), {})
    content = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert set(content) == {"identity", "progress", "network", "optimizer", "schedule", "best"}


def test_an_update_that_was_not_fused_stays_so(tmp_path: Path) -> None:
    """P2: a training that an earlier version began takes the steps that it would have taken."""
    plain, fused = begin(tmp_path), begin(tmp_path)
    plain.parts["optimizer"] = torch.optim.Adam(plain.parts["network"].parameters())  # type: ignore[attr-defined]
    plain.write(Progress(), {})
    assert fused.parts["optimizer"].param_groups[0]["fused"]  # type: ignore[attr-defined]
    fused.read()
    assert not fused.parts["optimizer"].param_groups[0]["fused"]  # type: ignore[attr-defined]


def test_another_training_is_refused(tmp_path: Path) -> None:
    begin(tmp_path).write(Progress(), {})
    other = begin(tmp_path, seed=1, manifest="n", options=OPTIONS | {"lr": 0.1})
    before = state(other)
    with pytest.raises(StaleInput, match=r"with manifest='m', now 'n', lr=0.001, now 0.1: give") as caught:
        other.read()
    assert "\n" not in str(caught.value)
    assert same(before, state(other))


def test_another_precision_is_refused_unless_it_was_chosen_by_timing(tmp_path: Path) -> None:
    begin(tmp_path, precision="bf16").write(Progress(), {})
    with pytest.raises(StaleInput, match="precision='bf16', now 'fp32'"):
        begin(tmp_path).read()
    auto = {"precision": "auto"}
    begin(tmp_path, precision="bf16", options=auto).write(Progress(), {})
    chosen = begin(tmp_path, precision="fp32", options=auto)
    assert chosen.read() is not None
    assert chosen.identity["precision"] == "bf16"


@pytest.mark.parametrize("damage", ["bit", "truncated", "text", "empty", "list", "keys"])
def test_a_damaged_file(tmp_path: Path, damage: str) -> None:
    checkpoint = begin(tmp_path)
    checkpoint.write(Progress(), {})
    path = checkpoint.path
    data = bytearray(path.read_bytes())
    if damage == "bit":
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    elif damage == "truncated":
        path.write_bytes(data[: len(data) // 2])
    elif damage == "text":
        path.write_text("hello")
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "list":
        torch.save([1, 2], path)
    else:
        torch.save({"identity": checkpoint.identity, "progress": {}}, path)
    with pytest.raises(BadArtifact, match=r"checkpoint\.pt: cannot be read .*: pass --restart") as caught:
        begin(tmp_path).read()
    assert "\n" not in str(caught.value)


@pytest.mark.fault("memory of the machine full")
def test_a_full_memory_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise MemoryError

    begin(tmp_path).write(Progress(), {})
    monkeypatch.setattr(torch, "load", full)
    with pytest.raises(MemoryError):
        begin(tmp_path).read()


@pytest.mark.fault("one flipped bit in any file of a run")
def test_one_flipped_bit_is_found_or_changes_nothing(tmp_path: Path) -> None:
    """P1."""
    checkpoint = begin(tmp_path)
    progress = Progress(epoch=1, step=2, loss_sum=0.1)
    checkpoint.write(progress, {"weight": torch.ones(3)})
    whole, data = state(checkpoint), checkpoint.path.read_bytes()
    places, found = random.Random(0), 0
    for _ in range(200):
        changed = bytearray(data)
        changed[places.randrange(len(data))] ^= 1 << places.randrange(8)
        checkpoint.path.write_bytes(changed)
        other = begin(tmp_path, seed=1)
        try:
            read = other.read()
        except (BadArtifact, StaleInput):
            found += 1
            continue
        assert read is not None
        assert read[0] == progress
        assert torch.equal(read[1]["weight"], torch.ones(3))
        assert same(state(other), whole)
    assert found > 150
