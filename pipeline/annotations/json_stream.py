"""Read the objects of a GeoJSON file one by one, so that memory does not grow with their number."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn, TextIO

from pipeline.errors import BadInput
from pipeline.storage.placeholder import no_file, placeholder

BLOCK = 1 << 20
"""Characters that are read at once."""

MOST_CHARACTERS = 1 << 28
"""Most characters of one object. A damaged file would otherwise be read as one endless object."""

BLANKS = " \t\r\n"

LONGEST_TAIL = 3
"""Characters that must follow a value: 12 may be the beginning of 123, and of 12e+5."""


def _refuse(word: str) -> NoReturn:
    raise ValueError(f"{word} is not a number of JSON")


DECODER = json.JSONDecoder(parse_constant=_refuse)


class _Text:
    """The text of a JSON file from a position on."""

    def __init__(self, file: TextIO) -> None:
        self.file, self.text, self.at, self.passed = file, "", 0, 0

    def more(self) -> bool:
        """Read further text, as much as is held, so that a long object is parsed a few times only."""
        block = self.file.read(max(BLOCK, len(self.text) - self.at))
        self.passed += self.at
        self.text, self.at = self.text[self.at :] + block, 0
        return bool(block)

    def peek(self) -> str:
        """Return the next character that is not blank, "" at the end of the file."""
        while True:
            while self.at < len(self.text) and self.text[self.at] in BLANKS:
                self.at += 1
            if self.at < len(self.text):
                return self.text[self.at]
            if not self.more():
                return ""

    def take(self, expected: str) -> str:
        """Return the next character, which is one of the expected ones, and pass it.

        Raises:
            ValueError: another character.
        """
        found = self.peek()
        if not found or found not in expected:
            what = f"'{found}'" if found else "the end of the file"
            raise ValueError(
                f"{what} where one of {' '.join(expected)} is expected (character {self.passed + self.at})"
            )
        self.at += 1
        return found

    def value(self) -> Any:
        """Return the next value.

        Raises:
            ValueError: not JSON, or too long.
        """
        self.peek()
        while True:
            try:
                found, end = DECODER.raw_decode(self.text, self.at)
            except ValueError as error:
                if len(self.text) - self.at > MOST_CHARACTERS or not self.more():
                    reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
                    raise ValueError(f"{reason} (near character {self.passed + self.at})") from None
                continue
            length = end - self.at
            if end > len(self.text) - LONGEST_TAIL and self.more():
                continue
            self.at += length
            return found

    def elements(self) -> Iterator[Any]:
        """Yield the elements of a list."""
        self.take("[")
        if self.peek() == "]":
            self.take("]")
            return
        while True:
            yield self.value()
            if self.take(",]") == "]":
                return


def read_features(path: Path) -> Iterator[Any]:
    """Yield the features of a GeoJSON file: of a FeatureCollection, a list of features, or a single feature.

    Raises:
        BadInput: missing, empty, or not JSON in UTF-8.
    """
    try:
        if what := no_file(path) or placeholder(path):
            raise BadInput(f"{path}: {what}")
        with path.open(encoding="utf-8-sig") as file:
            text = _Text(file)
            if text.peek() == "[":
                yield from text.elements()
            else:
                yield from _of_object(text)
            if text.peek():
                raise ValueError(f"text after its end (character {text.passed + text.at})")
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{path}: not GeoJSON in UTF-8: {error}: export the annotations again") from None


def _of_object(text: _Text) -> Iterator[Any]:
    """Yield the elements of the member "features" of an object; without that member, the object itself."""
    members: dict[str, Any] = {}
    is_collection = False
    text.take("{")
    end = text.take("}") if text.peek() == "}" else ""
    while end != "}":
        if text.peek() != '"':
            text.take('"')
        name = text.value()
        text.take(":")
        if name == "features" and text.peek() == "[":
            is_collection = True
            yield from text.elements()
        else:
            members[name] = text.value()
        end = text.take(",}")
    if not is_collection:
        yield members
