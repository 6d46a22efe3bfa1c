"""A process's peak is seen from outside, its children's too."""

import os
import subprocess
import sys

import pytest

from pipeline.benchmark.memory import Watch, children, is_told, told_bytes

pytestmark = pytest.mark.skipif(not is_told(), reason="only Linux tells")

HOLD = "import time; held = bytearray({n}); held[::4096] = b'x' * len(held[::4096]); time.sleep(2)"
"""Eight looks long."""


def peak_of(code: str) -> int:
    """Run code to its end; return its peak."""
    with subprocess.Popen([sys.executable, "-c", code]) as process, Watch(process.pid) as watch:
        assert process.wait() == 0
    return watch.peak_bytes


def test_its_own_memory() -> None:
    small, large = peak_of(HOLD.format(n=20_000_000)), peak_of(HOLD.format(n=120_000_000))
    assert 80e6 < large - small < 130e6


def test_a_childs_memory_counts() -> None:
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {HOLD.format(n=120_000_000)!r}])"
    assert peak_of(code) > 120e6


def test_children_begin_with_the_process_itself() -> None:
    assert children(os.getpid())[0] == os.getpid()
    assert told_bytes(2**30, "status", "VmHWM") == 0
