"""Download one file, resume it after every interruption, and check it before it gets its name.

Reads a http or https address, writes `<target>.partial` and, once the checksum is right, `<target>`:

    download(KATHER2016.url, Path("data/kather2016/tiles.zip"), md5=KATHER2016.md5, size_hint=258_000_000)
"""

import dataclasses
import errno
import hashlib
import http.client
import os
import re
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pipeline.errors import BadInput, DiskFull, PipelineError, UsageError
from pipeline.runtime.progress import progress

if TYPE_CHECKING:
    from tqdm import tqdm

TIMEOUT_S = 30.0
"""Silence of the server, in seconds, after which a connection counts as lost."""

BACKOFF_S = 2.0
"""Pause before the second try, in seconds; it doubles with every further try."""

BLOCK_BYTES = 1 << 16

BY_HAND = "download it by hand and give its path with --source"

_RETRY_STATUS = {408, 425, 429, 500, 502, 503, 504}


class _LostError(Exception):
    """A failure of the connection or of the server; another try may succeed."""


def md5_of(path: Path) -> str:
    """Return the MD5 of a file as 32 lower-case hex digits.

    MD5 is what Zenodo publishes; it guards against damage, not against an attacker.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def disk_error(error: OSError, path: Path) -> PipelineError:
    """Return the one-line error for a failed read or write of local files at `path`."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull(f"no space left to write {path}; free some and run the same command again")
    return BadInput(f"cannot read or write {path}: {_one_line(error)}")


def download(
    url: str,
    target: Path,
    *,
    md5: str,
    size_hint: int | None = None,
    tries: int = 5,
    backoff_s: float = BACKOFF_S,
    timeout_s: float = TIMEOUT_S,
) -> None:
    """Download `url` to `target`; a file under that name is always complete and has the given MD5.

    Received bytes are kept in `<target>.partial`, and a later try, or a later call, requests only the rest. There is no
    If-Range: the checksum fixes the content. One process at a time: the caller holds a lock.

    Args:
        url: http or https address.
        target: final path; its folder is made.
        md5: expected MD5 of the whole file, hex.
        size_hint: expected size in bytes, for the bar; a body over twice this size is refused.
        tries: number of tries in a row without a new byte before giving up.
        backoff_s: pause after the first failed try in seconds, doubled after each further one.
        timeout_s: socket time-out in seconds.

    Raises:
        UsageError: the address is not http or https.
        BadInput: no connection, a refusal by the server, a body too large, or a wrong checksum.
        DiskFull: no space left for the file; received bytes are kept.
    """
    _check_url(url)
    md5 = md5.lower()
    try:
        if target.exists():
            if (found := md5_of(target)) != md5:
                raise BadInput(f"{target} has md5 {found} instead of {md5}; delete it and run again")
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(target.name + ".partial")
        # a run may have ended between the last byte and the renaming: then there is nothing left to request
        if not (partial.exists() and md5_of(partial) == md5):
            with progress(size_hint or 0, unit="B", label=target.name, done=_size(partial)) as bar:
                bar.unit_scale = True
                cap = None if size_hint is None else 2 * size_hint
                _Transfer(url, partial, cap, timeout_s, bar).run(tries=tries, backoff_s=backoff_s)
            if (found := md5_of(partial)) != md5:
                partial.unlink()
                raise BadInput(f"{url} brought md5 {found} instead of {md5}; run again, or {BY_HAND}")
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.replace(target)
    except OSError as error:
        raise disk_error(error, target) from error


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or not re.fullmatch(r"[!-~]+", url):
        raise UsageError(f"{url!r} is no http or https address; give one, or a local path with --source")


@dataclasses.dataclass(frozen=True)
class _Transfer:
    """Bring the bytes of an address into a file."""

    url: str
    partial: Path
    cap_bytes: int | None
    timeout_s: float
    bar: "tqdm[Any]"

    def run(self, *, tries: int, backoff_s: float) -> None:
        """Repeat requests until one ends well; only tries in a row without new bytes are counted."""
        furthest, failures = _size(self.partial), 0
        while True:
            try:
                self.request()
                return
            except _LostError as error:
                # `furthest` never falls, so a server that starts from zero each time does not keep us for ever
                received = _size(self.partial)
                failures = 1 if received > furthest else failures + 1
                furthest = max(furthest, received)
                if failures >= tries:
                    kept = f"; {received} bytes are kept for the next call" if received else ""
                    raise BadInput(
                        f"{self.url} cannot be downloaded ({error}; {failures} tries){kept}; check the network, or "
                        f"{BY_HAND}"
                    ) from error
                self.bar.set_postfix_str(str(error))
                time.sleep(backoff_s * 2 ** (failures - 1))

    def request(self) -> None:
        """Request once what `partial` lacks and append it; `_LostError` if the body did not arrive whole."""
        offset = _size(self.partial)
        headers = {"User-Agent": "histoheads", "Accept-Encoding": "identity"}
        headers |= {"Range": f"bytes={offset}-"} if offset else {}
        request = urllib.request.Request(self.url, headers=headers)  # noqa: S310 - the scheme was checked
        try:
            response = urllib.request.urlopen(request, timeout=self.timeout_s)  # noqa: S310 - the scheme was checked
        except urllib.error.HTTPError as error:
            error.close()
            raise self.refusal(error, offset) from error
        except (OSError, http.client.HTTPException) as error:
            raise _LostError(_one_line(error)) from error
        with response:
            start = _body_start(response)
            if start not in (0, offset):
                self.partial.unlink()
                raise _LostError(f"the server does not begin at byte {offset}, as requested")
            self.receive(response, start)

    def refusal(self, error: urllib.error.HTTPError, offset: int) -> Exception:
        """Return what an answer other than 200 and 206 means: try again, or give up."""
        answer = f"the server answers {error.code} {_one_line(error.reason)}"
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and offset:
            self.partial.unlink()  # as long as the body or longer, yet not the file, by its MD5
            return _LostError(answer)
        return _LostError(answer) if error.code in _RETRY_STATUS else BadInput(f"{self.url}: {answer}; {BY_HAND}")

    def receive(self, response: http.client.HTTPResponse, start: int) -> None:
        """Write the body from byte `start` of the file on; start 0 although bytes were there: the file begins again."""
        length = response.headers.get("Content-Length", "")
        end = start + int(length) if length.isdecimal() else None
        self.bar.n, self.bar.total = start, end or self.bar.total
        self.bar.refresh()
        received = start
        if not self.is_over(end):
            with self.partial.open("ab" if start else "wb") as file:
                while not self.is_over(received) and (block := _read(response)):
                    file.write(block)
                    received += len(block)
                    self.bar.update(len(block))
        if self.is_over(end) or self.is_over(received):
            self.partial.unlink(missing_ok=True)
            raise BadInput(
                f"{self.url} sends {end or received} bytes, more than twice the expected number: this is another file; "
                f"{BY_HAND}"
            )
        if end is not None and received < end:  # http.client reports this for chunked answers only
            raise _LostError(f"connection closed after {received} of {end} bytes")

    def is_over(self, n_bytes: int | None) -> bool:
        """Return whether a size is over the limit."""
        return n_bytes is not None and self.cap_bytes is not None and n_bytes > self.cap_bytes


def _body_start(response: http.client.HTTPResponse) -> int | None:
    """Return the byte of the file at which the body begins; None if the answer does not contain it."""
    if response.status != http.HTTPStatus.PARTIAL_CONTENT:
        return 0
    match = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    return int(match[1]) if match else None


def _read(response: http.client.HTTPResponse) -> bytes:
    try:
        return response.read1(BLOCK_BYTES)  # not read: bytes that arrived before a reset must reach the disk
    except (OSError, http.client.HTTPException) as error:
        raise _LostError(_one_line(error)) from error


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _one_line(error: object) -> str:
    reason = getattr(error, "reason", error)
    return " ".join(str(reason).split()) or type(error).__name__
