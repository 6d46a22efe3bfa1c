"""The ten large images by download, by a local zip and by a folder, with a small stand-in."""

import hashlib
import io
import json
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pipeline.errors import BadInput
from pipeline.slides.kather2016_large import Record, large_images

NAMES = [f"CRC-Prim-HE-{number:02d}_APPLICATION.tif" for number in range(1, 11)]


def fake_zip(names: list[str] = NAMES) -> bytes:
    """Ten files below one folder, and what macOS adds."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as opened:
        for name in names:
            opened.writestr(f"Kather_texture_2016_larger_images_10/{name}", name)
        opened.writestr("__MACOSX/._CRC-Prim-HE-01_APPLICATION.tif", "x")
    return buffer.getvalue()


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Path]:
    """A folder that a server gives; `record` in it lists the zip, `port` names the port."""
    shelf = tmp_path / "web"
    shelf.mkdir()

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(shelf)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    (shelf / "port").write_text(str(server.server_address[1]))
    yield shelf
    server.shutdown()
    server.server_close()


def publish(shelf: Path, data: bytes, *, md5: str | None = None) -> Record:
    """Put a zip and its record on the shelf."""
    base = f"http://127.0.0.1:{(shelf / 'port').read_text()}"
    (shelf / "set.zip").write_bytes(data)
    entry = {
        "key": "large.zip",
        "checksum": "md5:" + (md5 or hashlib.md5(data).hexdigest()),
        "size": len(data),
        "links": {"self": f"{base}/set.zip"},
    }
    (shelf / "record").write_text(json.dumps({"files": [{"key": "other.zip"}, entry]}))
    return Record(api=f"{base}/record", name="large.zip")


def test_the_download_is_checked_by_the_records_own_list(web: Path, tmp_path: Path) -> None:
    record, cache = publish(web, fake_zip()), tmp_path / "cache"
    found = large_images(None, cache=cache, record=record)
    assert [entry.path.name for entry in found] == NAMES
    assert [entry.group for entry in found] == [f"{number:02d}" for number in range(1, 11)]
    assert {entry.mpp.mpp for entry in found if entry.mpp} == {0.495}
    assert not list(cache.glob("*.zip"))
    (web / "record").unlink()  # a complete copy asks nobody
    assert large_images(None, cache=cache, record=record) == found


def test_another_checksum_is_refused(web: Path, tmp_path: Path) -> None:
    record = publish(web, fake_zip(), md5="0" * 32)
    with pytest.raises(BadInput, match="brought md5"):
        large_images(None, cache=tmp_path / "cache", record=record)
    assert not (tmp_path / "cache" / "images").exists()


@pytest.mark.parametrize(
    "text",
    ["not JSON", "[]", '{"files": [{"key": "large.zip", "checksum": "sha1:00", "size": 1, "links": {"self": "x"}}]}'],
)
def test_a_list_that_does_not_help(web: Path, tmp_path: Path, text: str) -> None:
    record = publish(web, fake_zip())
    (web / "record").write_text(text)
    with pytest.raises(BadInput, match="download it by hand"):
        large_images(None, cache=tmp_path / "cache", record=record)


def test_no_connection_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="give its path with --source"):
        large_images(None, cache=tmp_path / "cache", record=Record(api="http://127.0.0.1:1/none"))


def test_a_local_zip_or_folder(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(fake_zip())
    found = large_images(tmp_path / "a.zip", cache=tmp_path / "cache")
    assert len(found) == 10
    assert [entry.name for entry in large_images(tmp_path / "cache" / "images", cache=tmp_path)] == [
        entry.name for entry in found
    ]
    (tmp_path / "b.zip").write_bytes(fake_zip(NAMES[:9]))
    with pytest.raises(BadInput, match="holds 9 images"):
        large_images(tmp_path / "b.zip", cache=tmp_path / "other")
    with pytest.raises(BadInput, match="does not exist"):
        large_images(tmp_path / "none.zip", cache=tmp_path / "cache")
