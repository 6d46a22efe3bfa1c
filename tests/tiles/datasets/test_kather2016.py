"""The data set by download, by a local zip and by a folder, with a small stand-in of the same shape."""

import hashlib
import io
import re
import shutil
import threading
import zipfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pipeline.errors import BadInput, Locked
from pipeline.storage.lock import locked
from pipeline.tiles.datasets.kather2016 import CREDIT, GROUP_REGEX, KATHER2016, Facts, kather2016_folder

NAMES = Path(__file__).parents[3] / "../shared/data/kather2016/names.txt"
CLASSES = KATHER2016.classes


def fake_zip(*, leave_out: str = "") -> bytes:
    """Eight classes of two files each, below the folder of the published zip."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as opened:
        for name in CLASSES:
            for tile in ("10A0_CRC-Prim-HE-05_032.tif_Row_1_Col_1.tif", "1_CRC-Prim-HE-07.tif"):
                if leave_out != f"{name}/{tile}":
                    opened.writestr(f"{KATHER2016.root}/{name}/{tile}", f"{name} {tile}")
    return buffer.getvalue()


def facts_of(archive: bytes, url: str = "http://127.0.0.1:1/none.zip") -> Facts:
    return Facts(url=url, md5=hashlib.md5(archive).hexdigest(), size_bytes=len(archive), per_class=2)


@dataclass
class Web:
    facts: Facts
    requests: list[str]


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Web]:
    """A server that holds the stand-in zip, and facts that point to it."""
    shelf = tmp_path / "web"
    shelf.mkdir()
    (shelf / "set.zip").write_bytes(fake_zip())
    seen: list[str] = []

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            seen.append(self.path)

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(shelf)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    url = f"http://127.0.0.1:{server.server_port}/set.zip?download=1"
    yield Web(facts_of(fake_zip(), url), seen)
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "data" / "kather2016"


def tiles_of(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.tif"))


def unpacked(folder: Path) -> Path:
    with zipfile.ZipFile(io.BytesIO(fake_zip())) as opened:
        opened.extractall(folder)
    return folder


def test_downloads_once_and_keeps_no_zip(web: Web, cache: Path) -> None:
    folder = kather2016_folder(None, cache=cache, facts=web.facts)
    assert sorted(path.name for path in folder.iterdir()) == list(CLASSES)
    assert len(tiles_of(folder)) == 16
    assert not list(cache.rglob("*.zip*"))
    assert kather2016_folder(None, cache=cache, facts=web.facts) == folder
    assert len(web.requests) == 1


def test_a_download_left_by_a_dead_run_is_used(web: Web, cache: Path) -> None:
    cache.mkdir(parents=True)
    (cache / "tiles.zip.partial").write_bytes(fake_zip()[:-100])
    (cache / "tiles.partial" / "01_TUMOR").mkdir(parents=True)
    folder = kather2016_folder(None, cache=cache, facts=web.facts)
    assert len(tiles_of(folder)) == 16
    assert sorted(path.name for path in cache.iterdir()) == [".lock", "tiles"]


def test_a_local_zip_needs_no_network_and_stays(tmp_path: Path, cache: Path) -> None:
    archive = tmp_path / "by hand.zip"
    archive.write_bytes(fake_zip())
    facts = facts_of(fake_zip())
    folder = kather2016_folder(str(archive), cache=cache, facts=facts)
    assert len(tiles_of(folder)) == 16
    assert archive.exists()
    archive.unlink()
    assert kather2016_folder(None, cache=cache, facts=facts) == folder


def test_another_zip_is_refused_with_both_checksums(tmp_path: Path, cache: Path) -> None:
    archive = tmp_path / "other.zip"
    archive.write_bytes(fake_zip() + b"x")
    with pytest.raises(BadInput) as error:
        kather2016_folder(archive, cache=cache)
    assert KATHER2016.md5 in str(error.value)
    assert hashlib.md5(archive.read_bytes()).hexdigest() in str(error.value)
    assert not cache.exists()


@pytest.mark.parametrize("above", ["", "Kather_texture_2016_image_tiles_5000"])
def test_a_folder_is_used_in_place(tmp_path: Path, cache: Path, above: str) -> None:
    mine = unpacked(tmp_path / "mine" / above)
    inner = mine / KATHER2016.root
    for source in {mine, inner, tmp_path / "mine"}:
        assert kather2016_folder(source, cache=cache, facts=facts_of(b"")) == inner
    assert not cache.exists()


def test_wrong_counts_name_the_class_and_both_numbers(tmp_path: Path, cache: Path) -> None:
    inner = unpacked(tmp_path / "mine") / KATHER2016.root
    with pytest.raises(BadInput, match=r"01_TUMOR has 2 \.tif tiles instead of 625"):
        kather2016_folder(inner, cache=cache)
    (inner / "03_COMPLEX" / "more.TIF").write_bytes(b"")
    with pytest.raises(BadInput, match=r"03_COMPLEX has 3 \.tif tiles instead of 2"):
        kather2016_folder(inner, cache=cache, facts=facts_of(b""))
    (inner / "03_COMPLEX" / "more.TIF").unlink()
    shutil.rmtree(inner / "02_STROMA")
    with pytest.raises(BadInput, match=r"02_STROMA has 0 \.tif tiles instead of 2"):
        kather2016_folder(inner, cache=cache, facts=facts_of(b""))


def test_what_systems_leave_behind_is_not_counted(tmp_path: Path, cache: Path) -> None:
    inner = unpacked(tmp_path / "mine") / KATHER2016.root
    for junk in ("01_TUMOR/._1.tif", "01_TUMOR/Thumbs.db", ".DS_Store", "readme.txt"):
        (inner / junk).write_bytes(b"")
    (inner / "__MACOSX").mkdir()
    assert kather2016_folder(inner, cache=cache, facts=facts_of(b"")) == inner


def test_a_ninth_class_is_refused(tmp_path: Path, cache: Path) -> None:
    inner = unpacked(tmp_path / "mine") / KATHER2016.root
    (inner / "09_OTHER").mkdir()
    with pytest.raises(BadInput, match="09_OTHER"):
        kather2016_folder(inner, cache=cache, facts=facts_of(b""))


def test_sources_that_hold_nothing(tmp_path: Path, cache: Path) -> None:
    with pytest.raises(BadInput, match="does not exist"):
        kather2016_folder(tmp_path / "absent.zip", cache=cache)
    with pytest.raises(BadInput, match="holds no class folder"):
        kather2016_folder(tmp_path, cache=cache)


def test_a_damaged_cache_is_refused_and_says_what_to_delete(web: Web, cache: Path) -> None:
    folder = kather2016_folder(None, cache=cache, facts=web.facts)
    next((folder / "08_EMPTY").iterdir()).unlink()
    with pytest.raises(BadInput) as error:
        kather2016_folder(None, cache=cache, facts=web.facts)
    assert "08_EMPTY has 1 .tif tiles instead of 2" in str(error.value)
    assert f"delete {cache / 'tiles'}" in str(error.value)


def test_a_published_zip_with_too_few_tiles_is_refused(tmp_path: Path, cache: Path) -> None:
    short = fake_zip(leave_out="05_DEBRIS/1_CRC-Prim-HE-07.tif")
    archive = tmp_path / "short.zip"
    archive.write_bytes(short)
    with pytest.raises(BadInput, match=r"05_DEBRIS has 1 \.tif tiles instead of 2"):
        kather2016_folder(archive, cache=cache, facts=facts_of(short))


def test_a_zip_beyond_the_limits_is_refused(tmp_path: Path, cache: Path) -> None:
    archive = tmp_path / "big.zip"
    archive.write_bytes(fake_zip())
    with pytest.raises(BadInput, match="16 entries of"):
        kather2016_folder(archive, cache=cache, facts=replace(facts_of(fake_zip()), max_files=15))
    assert not (cache / "tiles").exists()


def test_a_second_process_is_told_to_wait(web: Web, cache: Path) -> None:
    cache.mkdir(parents=True)
    with locked(cache), pytest.raises(Locked, match="in use"):
        kather2016_folder(None, cache=cache, facts=web.facts)
    assert kather2016_folder(None, cache=cache, facts=web.facts).is_dir()


def test_published_facts() -> None:
    assert KATHER2016.md5 == "0ddbebfc56344752028fda72602aaade"
    assert KATHER2016.url.startswith("https://zenodo.org/records/53169/files/Kather_texture_2016_image_tiles_5000")
    assert (len(CLASSES), KATHER2016.per_class, KATHER2016.tile_px, KATHER2016.mpp) == (8, 625, 150, 0.495)
    for part in ("Kather", "Collection of textures", "10.5281/zenodo.53169", KATHER2016.licence):
        assert part in CREDIT


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("10A0_CRC-Prim-HE-05_032.tif_Row_1051_Col_1501.tif", "05"),
        ("1_CRC-Prim-HE-10c.tif_Row_1_Col_1.tif", "10"),
        ("1_CRC-Prim-HE-07.tif_Row_1_Col_1.tif", "07"),
        ("1_CRC-Prim-HE-02_007b.tif_Row_1_Col_1.tif", "02"),
        ("crc5000_adi.tif", None),
    ],
)
def test_group_of_a_name(name: str, group: str | None) -> None:
    match = re.search(GROUP_REGEX, name)
    assert (match[1] if match else None) == group


@pytest.mark.skipif(not NAMES.exists(), reason="the list of the 5000 published names is not here")
def test_every_published_name_has_one_of_ten_groups() -> None:
    names = NAMES.read_text().split("\n")
    names = [name for name in names if name]
    assert Counter(name.split("/")[0] for name in names) == dict.fromkeys(CLASSES, KATHER2016.per_class)
    assert all(name.endswith(KATHER2016.suffix) for name in names)
    found = [re.findall(GROUP_REGEX, name) for name in names]
    assert all(len(groups) == 1 for groups in found)
    sizes = (401, 284, 740, 381, 661, 1061, 503, 389, 342, 238)
    assert Counter(groups[0] for groups in found) == {f"{n:02}": size for n, size in enumerate(sizes, 1)}
