"""The guard that lets no test ask another machine."""

import socket

import pytest


@pytest.mark.fault("no network")
def test_no_test_asks_another_machine() -> None:
    with pytest.raises(OSError, match="no network in tests"):
        socket.create_connection(("192.0.2.1", 80))
    with pytest.raises(OSError, match="no network in tests"):
        socket.create_connection(("example.org", 80))
    with pytest.raises(OSError, match="no network in tests"), socket.socket() as alone:
        alone.connect(("2001:db8::1", 80))


def test_this_machine_may_be_asked() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(("localhost", server.getsockname()[1]), timeout=5).close()
