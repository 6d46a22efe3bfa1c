"""Write a fitted scikit-learn object as a skops file that has the same bytes for the same object (P6).

skops names members by their address in memory, and a zip file stores the time. Both differ between runs.
"""

import io
import itertools
import re
import zipfile
from collections import defaultdict
from typing import Any

ADDRESS = re.compile(r'("__id__": |"file": ")(\d+)')
"""An address in the schema; texts cannot match, because their quotation marks are escaped."""

LONG_AGO = (1980, 1, 1, 0, 0, 0)
"""The earliest time in a zip file."""


def stable_bytes(fitted: Any) -> bytes:
    """Return a skops file with members numbered in the order of the schema, and a constant time."""
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
