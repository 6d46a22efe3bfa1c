"""Recognise files without content of their own: broken links, Git LFS pointers, empty files, error pages."""

from pathlib import Path

HEAD_BYTES = 512
"""Bytes that are read; a Git LFS pointer has about 130."""

PLACEHOLDERS = (
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself: run `git lfs pull`"),
    (b"version https://hawser", "a Git LFS pointer, not the file itself: run `git lfs pull`"),
    (b"/annex/objects/", "a git-annex pointer, not the file itself: run `git annex get`"),
    (b"<!doctype html", "an HTML page, not the file itself: download it again"),
    (b"<html", "an HTML page, not the file itself: download it again"),
    (b'<?xml version="1.0" encoding="utf-8"?><error>', "an error message of a server: download the file again"),
    (b'<?xml version="1.0" encoding="utf-8"?>\n<error>', "an error message of a server: download the file again"),
)
"""First bytes (lower case) and what such a file is."""


def no_file(path: Path) -> str:
    """Return why there is no file to read at a path, "" where there is one.

    Raises:
        OSError: its folder cannot be searched.
    """
    if path.is_file():
        return ""
    if path.exists():
        return "not a file"
    if not path.is_symlink():
        return "not there"
    target = path.readlink()
    if "/annex/objects/" in target.as_posix():
        return "a git-annex link without its content: run `git annex get`"
    return f"a broken link: {target} is not there"


def placeholder(path: Path) -> str:
    """Return the kind of a placeholder file and what to do; "" for any other file.

    Use it to explain why a reader refused a file. A file that cannot be opened is no placeholder.
    """
    try:
        with path.open("rb") as handle:
            head = handle.read(HEAD_BYTES)
    except OSError:
        return ""
    if not head:
        return "an empty file (0 bytes): copy or download it again"
    if not head.strip(b"\0"):
        return "begins with zeros only, as an interrupted copy leaves it: copy or download it again"
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    return next((what for start, what in PLACEHOLDERS if text.startswith(start)), "")
