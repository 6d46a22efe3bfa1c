"""Fuzz one target with atheris (libFuzzer): `python tests/fuzz tile -max_total_time=60`.

Fuzzing begins from the committed corpus, which is text and only read, and from images and HDF5 files that `targets`
makes: ramps of colour, from no data set. Inputs that reach new code are kept in build/fuzz, files that break a promise
are written to build/fuzz/<target>-crash-*: minimise them, and make a test of them in tests/attacks.
"""

import logging
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["pipeline", "PIL", "tifffile"]):
    from targets import GOOD, TARGETS, quicken

HERE = Path(__file__).parent
KEPT = Path("build") / "fuzz"
LIMITS = ("-timeout=5", "-rss_limit_mb=1024", "-max_len=65536")
"""Seconds per file on a busy machine; megabytes, of which the libraries take 400; bytes of a file."""


def main() -> None:
    """Read the target's name and libFuzzer's options from the command line, and fuzz."""
    name, *options = sys.argv[1:] or [""]
    if name not in TARGETS:
        raise SystemExit(f"python tests/fuzz TARGET [libFuzzer options]: targets are {', '.join(TARGETS)}")
    quicken()
    logging.disable()  # Pillow logs what it thinks of a file before it raises
    kept = KEPT / name
    kept.mkdir(parents=True, exist_ok=True)
    shared_memory = Path("/dev/shm")
    place = Path(tempfile.mkdtemp(prefix="histoheads-fuzz-", dir=shared_memory if shared_memory.is_dir() else None))
    folders = [str(kept), *(str(folder) for folder in [HERE / "corpus" / name] if folder.is_dir())]
    for file, content in GOOD[name]().items() if name in GOOD else ():
        (kept / file).write_bytes(content)
    words = [sys.argv[0], f"-artifact_prefix={KEPT}/{name}-", *LIMITS, *options, *folders]
    atheris.Setup(words, lambda data: TARGETS[name](data, place))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
