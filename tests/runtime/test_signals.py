"""A stop that is asked for is told as one, whatever else the signal hit."""

import os
import signal

import pytest

from pipeline.errors import Interrupted, WorkerLost
from pipeline.runtime.signals import StopRequest


def test_a_worker_that_the_same_signal_killed_is_no_failure() -> None:
    with pytest.raises(Interrupted, match="SIGTERM: the work so far is kept") as caught, StopRequest() as stop:  # noqa: PT012
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.signum == signal.SIGTERM
        raise WorkerLost("killed by signal: Terminated")
    assert caught.value.exit_code == 143


def test_a_worker_that_died_by_itself_is_one() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(WorkerLost), StopRequest():
        raise WorkerLost("killed")
    assert signal.getsignal(signal.SIGTERM) is before
