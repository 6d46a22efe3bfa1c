"""Compare names of classes, groups and files: two spellings of one name, and names of copies."""

import re
import unicodedata
from collections.abc import Iterable, Sequence

from pipeline.errors import BadInput
from pipeline.runtime.console import visible

_COPY_WORDS = "copy|kopie|kopia|kopi|copie|copia|cópia|副本|コピー"

COPY = re.compile(
    rf"(?P<name>.+?)(?: ?- ?(?:{_COPY_WORDS})(?: ?\(\d+\))?"  # Windows
    rf"| (?:{_COPY_WORDS})(?: \d+)?"  # macOS
    r"| ?\((?:\d+|[^()]*\bcop(?:y|ie|ia)\b[^()]*)\)"  # browsers, GNOME, Dropbox
    r"|の?コピー|的?副本)",
    re.IGNORECASE,
)
"""What systems call the copy of a file or folder, without a suffix."""

COPY_OF = re.compile(r"(?:copy|kopie|copie|copia|cópia)(?: ?\(\d+\))? (?:of|von|de|di) (?P<name>.+)", re.IGNORECASE)
"""The other way round."""


def name_key(name: str) -> str:
    """Return what two spellings of one name have in common.

    Case, composed or decomposed accents, blanks around and repeated blanks inside, and invisible characters do not
    count.
    """
    shown = "".join(letter for letter in unicodedata.normalize("NFC", name) if unicodedata.category(letter) != "Cf")
    return " ".join(unicodedata.normalize("NFC", shown.casefold()).split())


def spellings(names: Iterable[str]) -> list[list[str]]:
    """Return the sets of different names that have one `name_key`, sorted."""
    by_key: dict[str, set[str]] = {}
    for name in set(names):
        by_key.setdefault(name_key(name), set()).add(name)
    return sorted(sorted(found) for found in by_key.values() if len(found) > 1)


def check_spellings(names: Iterable[str], *, what: str, where: str, option: str) -> None:
    """Refuse names that are equal but for their spelling, as two of them would be taken for two classes or patients.

    Args:
        names: names of classes, groups or slides.
        what: they are names of, in the plural.
        where: the folder or table they come from.
        option: option of the command, by which the user confirms that they differ.

    Raises:
        BadInput: names all spellings of the first such name.
    """
    found = spellings(names)
    if not found:
        return
    shown = " and ".join(quoted(name) for name in found[0])
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    raise BadInput(
        f"{where}: the {what} {shown}{more} differ only in case, blanks or the coding of accents: give them one "
        f"spelling, or pass {option} if they are different {what}"
    )


def quoted(name: str) -> str:
    """Return a name in quotes; with escapes where two names would look alike on a screen."""
    is_plain = name.isascii() or unicodedata.is_normalized("NFC", name)
    hidden = any(unicodedata.category(letter) in ("Cf", "Zs") and letter != " " for letter in name)
    return f"'{visible(name)}'" if is_plain and not hidden else ascii(name)


def copies(names: Sequence[str]) -> list[tuple[str, str]]:
    """Return (copy, original) of names that systems give to copies, where both are there.

    Args:
        names: names of the files (without suffixes) or folders of one folder.
    """
    there = set(names)
    found = []
    for name in sorted(there):
        match = COPY.fullmatch(name) or COPY_OF.fullmatch(name)
        if match and match["name"].strip() in there:
            found.append((name, match["name"].strip()))
    return found
