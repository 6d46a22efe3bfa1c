"""One file from the web, resumed after every interruption and checked before it gets its name.

Reads a http or https address, writes `<target>.partial` and, once the checksum is right, `<target>`:

    download(KATHER2016.url, Path("data/kather2016/tiles.zip"), md5=KATHER2016.md5, size_hint=258_000_000)
"""

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
from pipeline.storage.atomic import where_offered

if TYPE_CHECKING:
    from tqdm import tqdm

TIMEOUT_S = 30.0
"""Silence of the server, in seconds, after which a connection counts as lost."""

BACKOFF_S = 2.0
"""Pause before the second try, in seconds; it doubles with every further try."""

BLOCK_BYTES = 1 << 16

BY_HAND = "download it by hand and give its path with --source"

_RETRY_STATUS = {408, 425, 429, 500, 502, 503, 504}


class _CutError(Exception):
    """A failure of the connection or of the server that another try may mend."""


def md5_of(path: Path) -> str:
    """Return the MD5 of a file as 32 lower-case hex digits.

    MD5 is what Zenodo publishes; it guards against damage, not against an attacker.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


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
    """Fetch `url` into `target`; a file under that name is always complete and has the given MD5.

    Bytes that arrived are kept in `<target>.partial` and a later try, or a later call, asks only for
    the rest. There is no If-Range: the checksum fixes the content, so a server whose entity tag changed
    would only cost a needless restart. One process at a time: the caller holds the lock.

    Args:
        url: http or https address.
        target: final path; its folder is made.
        md5: expected MD5 of the whole file, hex.
        size_hint: expected size in bytes, for the bar; a body over twice this size is refused.
        tries: number of tries in a row that bring nothing new before giving up.
        backoff_s: pause after the first failed try in seconds, doubled after each further one.
        timeout_s: socket time-out in seconds.

    Raises:
        UsageError: the address is not http or https.
        BadInput: no connection, a refusal by the server, a body too large, or a wrong checksum.
        DiskFull: no space left for the file; what came so far is kept.
    """
    _check_url(url)
    try:
        _download(
            url,
            target,
            md5=md5.lower(),
            cap_bytes=None if size_hint is None else 2 * size_hint,
            size_hint=size_hint,
            tries=tries,
            backoff_s=backoff_s,
            timeout_s=timeout_s,
        )
    except OSError as error:
        raise disk_error(error, target) from error


def disk_error(error: OSError, path: Path) -> PipelineError:
    """Return the one-line error that stands for a failed read or write of local files at `path`."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull(f"no space left to write {path}; free some and run the same command again")
    return BadInput(f"cannot read or write {path}: {_one_line(error)}")


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or not re.fullmatch(r"[!-~]+", url):
        raise UsageError(f"{url!r} is no http or https address; give one, or a local path with --source")


def _download(
    url: str,
    target: Path,
    *,
    md5: str,
    cap_bytes: int | None,
    size_hint: int | None,
    tries: int,
    backoff_s: float,
    timeout_s: float,
) -> None:
    if target.exists():
        found = md5_of(target)
        if found != md5:
            raise BadInput(f"{target} has md5 {found} instead of {md5}; delete it and run again")
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(target.name + ".partial")
    # A run may have died between the last byte and the renaming: then there is nothing left to ask for.
    if not (partial.exists() and md5_of(partial) == md5):
        with progress(size_hint or 0, unit="B", label=target.name, done=_size(partial)) as bar:
            bar.unit_scale = True
            _fetch_all(
                url,
                partial,
                cap_bytes=cap_bytes,
                tries=tries,
                backoff_s=backoff_s,
                timeout_s=timeout_s,
                bar=bar,
            )
        found = md5_of(partial)
        if found != md5:
            partial.unlink()
            raise BadInput(f"{url} brought md5 {found} instead of {md5}; run again, or {BY_HAND}")
    with partial.open("rb+") as file, where_offered():
        os.fsync(file.fileno())
    partial.replace(target)


def _fetch_all(
    url: str,
    partial: Path,
    *,
    cap_bytes: int | None,
    tries: int,
    backoff_s: float,
    timeout_s: float,
    bar: "tqdm[Any]",
) -> None:
    """Repeat requests until one ends well; only tries in a row without new bytes are counted."""
    furthest = _size(partial)
    failures = 0
    while True:
        try:
            _fetch(url, partial, cap_bytes=cap_bytes, timeout_s=timeout_s, bar=bar)
        except _CutError as error:
            # `furthest` never falls, so a server that starts from zero each time cannot keep us for ever.
            failures = 1 if _size(partial) > furthest else failures + 1
            furthest = max(furthest, _size(partial))
            if failures >= tries:
                kept = f"; {_size(partial)} bytes are kept for the next call" if _size(partial) else ""
                raise BadInput(
                    f"{url} cannot be downloaded ({error}; {failures} tries){kept}; check the network, or {BY_HAND}"
                ) from error
            bar.set_postfix_str(str(error))
            time.sleep(backoff_s * 2 ** (failures - 1))
        else:
            return


def _fetch(url: str, partial: Path, *, cap_bytes: int | None, timeout_s: float, bar: "tqdm[Any]") -> None:
    """Ask once for what `partial` lacks and append it; `_CutError` if the body did not arrive whole."""
    offset = _size(partial)
    headers = {"User-Agent": "histoheads", "Accept-Encoding": "identity"}
    if offset:
        headers["Range"] = f"bytes={offset}-"
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 - the scheme was checked
    try:
        response = urllib.request.urlopen(request, timeout=timeout_s)  # noqa: S310 - the scheme was checked
    except urllib.error.HTTPError as error:
        error.close()
        answer = f"the server answers {error.code} {_one_line(error.reason)}"
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and offset:
            # As long as the body or longer, yet not the file (its MD5 was looked at): worthless.
            partial.unlink()
            raise _CutError(answer) from error
        if error.code in _RETRY_STATUS:
            raise _CutError(answer) from error
        raise BadInput(f"{url}: {answer}; {BY_HAND}") from error
    except (OSError, http.client.HTTPException) as error:
        raise _CutError(_one_line(error)) from error

    with response:
        start = _body_start(response)
        if start not in (0, offset):
            partial.unlink()
            raise _CutError(f"the server does not begin where it was asked to, at byte {offset}")
        length = response.headers.get("Content-Length", "")
        end = start + int(length) if length.isdecimal() else None
        bar.n, bar.total = start, end or bar.total
        bar.refresh()
        received = start
        # start == 0 although bytes were there: the server ignores Range, so the file begins anew.
        if not _over(end, cap_bytes):
            with partial.open("ab" if start else "wb") as file:
                while not _over(received, cap_bytes) and (block := _read(response)):
                    file.write(block)
                    received += len(block)
                    bar.update(len(block))
    if _over(end, cap_bytes) or _over(received, cap_bytes):
        partial.unlink(missing_ok=True)
        raise BadInput(
            f"{url} sends {end or received} bytes, more than twice what was expected: this is another file; {BY_HAND}"
        )
    # http.client reports a body that ends too early only for chunked answers.
    if end is not None and received < end:
        raise _CutError(f"connection closed after {received} of {end} bytes")


def _body_start(response: http.client.HTTPResponse) -> int | None:
    """Return the byte of the file at which the body begins; None if the answer does not say."""
    if response.status != http.HTTPStatus.PARTIAL_CONTENT:
        return 0
    match = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    return int(match[1]) if match else None


def _read(response: http.client.HTTPResponse) -> bytes:
    try:
        # read1, not read: what arrived before a reset must reach the disk.
        return response.read1(BLOCK_BYTES)
    except (OSError, http.client.HTTPException) as error:
        raise _CutError(_one_line(error)) from error


def _over(size: int | None, cap_bytes: int | None) -> bool:
    return size is not None and cap_bytes is not None and size > cap_bytes


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _one_line(error: object) -> str:
    reason = getattr(error, "reason", error)
    return " ".join(str(reason).split()) or type(error).__name__
