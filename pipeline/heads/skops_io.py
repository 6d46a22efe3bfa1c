"""A fitted scikit-learn object -> the bytes of a skops file, the same for the same object (P6).

skops names what it stores by its address in memory, and a zip notes the time: of two runs, no two files were alike.
"""

import io
import itertools
import re
import zipfile
from collections import defaultdict
from typing import Any

ADDRESS = re.compile(r'("__id__": |"file": ")(\d+)')
"""Where an address stands in a schema; outside of a text, which has its quotation marks escaped."""

LONG_AGO = (1980, 1, 1, 0, 0, 0)
"""The first time that a zip can note."""


def stable_bytes(fitted: Any) -> bytes:
    """Return a skops file whose members are numbered in the order of its schema and bear no time."""
    import skops.io

    numbers: defaultdict[str, str] = defaultdict(map(str, itertools.count()).__next__)
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(skops.io.dumps(fitted))) as source, zipfile.ZipFile(target, "w") as copy:
        schema = ADDRESS.sub(lambda match: match[1] + numbers[match[2]], source.read("schema.json").decode())
        members = {
            f"{numbers[address]}{dot}{suffix}": source.read(name)
            for name in source.namelist()
            for address, dot, suffix in [name.partition(".")]
            if name != "schema.json"
        }
        for name in sorted(members):
            copy.writestr(zipfile.ZipInfo(name, LONG_AGO), members[name])
        copy.writestr(zipfile.ZipInfo("schema.json", LONG_AGO), schema)
    return target.getvalue()
