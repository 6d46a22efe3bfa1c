"""Downloads against a server on 127.0.0.1 that cuts, stalls, ignores ranges and sends wrong bytes."""

import errno
import hashlib
import os
import random
import socket
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pipeline.errors import BadInput, DiskFull, UsageError
from pipeline.tiles.datasets.download import disk_error, download, md5_of

BODY = random.Random(0).randbytes(300_001)
MD5 = hashlib.md5(BODY).hexdigest()


@dataclass
class Served:
    """What the server sends and what it saw."""

    body: bytes = BODY
    cuts: list[int] = field(default_factory=list)  # bytes to send before cutting, one per request
    statuses: list[int] = field(default_factory=list)  # refusals, one per request
    ignore_range: bool = False
    wrong_start: bool = False
    reset: bool = False
    stall: bool = False
    with_length: bool = True
    redirect: bool = False
    ranges: list[str | None] = field(default_factory=list)
    sent: int = 0
    url: str = ""
    asked_again: threading.Event = field(default_factory=threading.Event)
    waited_in_vain: bool = False


@pytest.fixture
def served() -> Iterator[Served]:
    state = Served()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if state.redirect and self.path == "/file":
                self.send_response(302)
                self.send_header("Location", "/elsewhere")
                self.end_headers()
                return
            wanted = self.headers.get("Range")
            state.ranges.append(wanted)
            if len(state.ranges) > 1:
                state.asked_again.set()
            if state.statuses:
                self.send_error(state.statuses.pop(0))
                return
            start = 0 if wanted is None or state.ignore_range else int(wanted[len("bytes=") : -1])
            if start and start >= len(state.body):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(state.body)}")
                self.end_headers()
                return
            if state.wrong_start and start:
                start += 7
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(state.body) - 1}/{len(state.body)}")
            if state.with_length:
                self.send_header("Content-Length", str(len(state.body) - start))
            self.end_headers()
            block = state.body[start:]
            if state.cuts:
                block = block[: state.cuts.pop(0)]
                if state.stall:
                    self.wfile.write(block)
                    state.sent += len(block)
                    state.waited_in_vain = not state.asked_again.wait(10)
                    return
            self.wfile.write(block)
            state.sent += len(block)
            if state.reset and len(block) < len(state.body) - start:
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    state.url = f"http://127.0.0.1:{server.server_port}/file"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield state
    state.asked_again.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "new" / "file.bin"


def partial_of(target: Path, content: bytes | None = None) -> Path:
    partial = target.with_name(target.name + ".partial")
    if content is not None:
        partial.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(content)
    return partial


def fetch(served: Served, target: Path, *, tries: int = 3, size_hint: int | None = len(BODY)) -> None:
    download(served.url, target, md5=MD5, size_hint=size_hint, tries=tries, backoff_s=0.001, timeout_s=5)


def assert_complete(target: Path) -> None:
    assert target.read_bytes() == BODY
    assert not partial_of(target).exists()


def assert_one_line(error: pytest.ExceptionInfo[Exception], *parts: str) -> None:
    text = str(error.value)
    assert "\n" not in text
    for part in parts:
        assert part in text


@pytest.mark.parametrize("with_length", [True, False])
def test_downloads_in_one_request(served: Served, target: Path, with_length: bool) -> None:
    served.with_length = with_length
    fetch(served, target)
    assert_complete(target)
    assert served.ranges == [None]


def test_follows_a_redirect(served: Served, target: Path) -> None:
    served.redirect = True
    fetch(served, target)
    assert_complete(target)


def test_resumes_after_cuts_without_fetching_a_byte_twice(served: Served, target: Path) -> None:
    # more cuts than tries: a try that brought something new does not count
    served.cuts = [70_000, 1, 50_000, 10, 60_000]
    fetch(served, target, tries=2)
    assert_complete(target)
    assert served.ranges == [None, *(f"bytes={n}-" for n in (70_000, 70_001, 120_001, 120_011, 180_011))]
    assert served.sent == len(BODY)


def test_survives_connection_resets(served: Served, target: Path) -> None:
    served.cuts, served.reset = [100_000, 30_000], True
    fetch(served, target, tries=4)
    assert_complete(target)


def test_a_silent_server_counts_as_cut(served: Served, target: Path) -> None:
    served.cuts, served.stall = [90_000], True
    download(served.url, target, md5=MD5, tries=2, backoff_s=0.001, timeout_s=0.3)
    assert_complete(target)
    assert served.ranges == [None, "bytes=90000-"]
    assert not served.waited_in_vain


def test_resumes_the_partial_of_a_killed_run(served: Served, target: Path) -> None:
    partial_of(target, BODY[:123_456])
    fetch(served, target)
    assert_complete(target)
    assert served.ranges == ["bytes=123456-"]
    assert served.sent == len(BODY) - 123_456


def test_a_complete_partial_needs_no_request(served: Served, target: Path) -> None:
    partial_of(target, BODY)
    fetch(served, target)
    assert_complete(target)
    assert served.ranges == []


@pytest.mark.parametrize("extra", [b"", b"tail of another file"])
def test_a_wrong_partial_as_long_as_the_body_or_longer_starts_anew(served: Served, target: Path, extra: bytes) -> None:
    partial_of(target, bytes(len(BODY)) + extra)
    fetch(served, target)
    assert_complete(target)
    assert served.ranges == [f"bytes={len(BODY) + len(extra)}-", None]


def test_restarts_when_the_server_ignores_the_range(served: Served, target: Path) -> None:
    served.ignore_range = True
    partial_of(target, b"not the beginning of the file")
    served.cuts = [1000]
    fetch(served, target)
    assert_complete(target)
    assert served.ranges == ["bytes=29-", "bytes=1000-"]


def test_a_server_that_always_starts_from_zero_cannot_keep_us_for_ever(served: Served, target: Path) -> None:
    served.ignore_range, served.cuts = True, [5000, 10] * 25
    with pytest.raises(BadInput, match="5000 of 300001"):
        fetch(served, target, tries=3)
    # the first request brings 5000 new bytes and is failure 1; the next two get no further than it
    assert len(served.ranges) == 3


def test_restarts_when_the_body_begins_at_another_byte(served: Served, target: Path) -> None:
    served.wrong_start = True
    partial_of(target, BODY[:1000])
    fetch(served, target)
    assert_complete(target)
    assert served.ranges == ["bytes=1000-", None]


def test_wrong_content_is_removed_and_both_checksums_named(served: Served, target: Path) -> None:
    served.body = BODY[:-1] + b"\0"
    with pytest.raises(BadInput) as error:
        fetch(served, target)
    assert_one_line(error, MD5, hashlib.md5(served.body).hexdigest(), "--source")
    assert list(target.parent.iterdir()) == []


@pytest.mark.parametrize("with_length", [True, False])
def test_refuses_a_body_over_twice_the_expected_size(served: Served, target: Path, with_length: bool) -> None:
    served.with_length = with_length
    with pytest.raises(BadInput) as error:
        fetch(served, target, size_hint=1000)
    assert_one_line(error, "more than twice", "--source")
    assert list(target.parent.iterdir()) == []


def test_not_found_is_final(served: Served, target: Path) -> None:
    served.statuses = [404]
    with pytest.raises(BadInput) as error:
        fetch(served, target)
    assert_one_line(error, "404", served.url, "--source")
    assert len(served.ranges) == 1


def test_a_busy_server_is_asked_again(served: Served, target: Path) -> None:
    served.statuses = [503, 429]
    fetch(served, target, tries=3)
    assert_complete(target)


def test_pauses_double(served: Served, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("pipeline.tiles.datasets.download.time.sleep", pauses.append)
    served.statuses = [503] * 9
    with pytest.raises(BadInput, match="503"):
        download(served.url, target, md5=MD5, tries=4, backoff_s=2)
    assert pauses == [2, 4, 8]


@pytest.mark.fault("no network")
def test_no_server_gives_one_clear_line_and_keeps_the_partial(target: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/file"
    partial = partial_of(target, BODY[:10])
    with pytest.raises(BadInput) as error:
        download(url, target, md5=MD5, tries=2, backoff_s=0.001)
    assert_one_line(error, url, "10 bytes are kept", "download it by hand and give its path with --source")
    assert partial.read_bytes() == BODY[:10]
    assert not target.exists()


@pytest.mark.parametrize(
    "url", ["file:///etc/hostname", "ftp://127.0.0.1/x", "x.zip", "http://", "http://h:port/", "http://h/a b"]
)
def test_only_web_addresses(url: str, target: Path) -> None:
    with pytest.raises(UsageError, match="--source"):
        download(url, target, md5=MD5)
    assert not target.parent.exists()


def test_a_finished_target_is_left_alone_and_a_wrong_one_refused(served: Served, target: Path) -> None:
    target.parent.mkdir()
    target.write_bytes(BODY)
    fetch(served, target)
    assert served.ranges == []
    target.write_bytes(b"other")
    with pytest.raises(BadInput) as error:
        fetch(served, target)
    assert_one_line(error, MD5, md5_of(target), "delete it")
    assert target.read_bytes() == b"other"


@pytest.mark.fault("full disk, in every writer")
def test_a_full_disk_keeps_what_came(served: Served, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("pipeline.tiles.datasets.download.os.fsync", full)
        with pytest.raises(DiskFull, match="no space left"):
            fetch(served, target)
    assert not target.exists()
    fetch(served, target)
    assert_complete(target)
    assert len(served.ranges) == 1


def test_disk_errors_name_the_file(tmp_path: Path) -> None:
    assert isinstance(disk_error(OSError(errno.EDQUOT, "quota"), tmp_path), DiskFull)
    other = disk_error(PermissionError(errno.EACCES, "Permission denied"), tmp_path)
    assert isinstance(other, BadInput)
    assert str(tmp_path) in str(other)


def test_a_folder_that_cannot_be_made_is_one_line(served: Served, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(BadInput, match="cannot read or write"):
        fetch(served, tmp_path / "file" / "x.bin")
