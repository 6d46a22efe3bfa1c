"""Describe options to tyro: in groups, each with the text below its field as help."""

import ast
import dataclasses
import inspect
import itertools
import re
import textwrap
import types
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, cast

VALUE_NAMES = {int: "INT", float: "FLOAT", str: "TEXT", Path: "PATH"}
"""Type of an option -> the name of its value in the help."""

HIDDEN_DEFAULTS = ("None", "False", "")
"""Defaults that the help leaves out: of a switch, and of an option whose text describes the default."""


@dataclasses.dataclass(frozen=True)
class Option:
    """One option as the help shows it."""

    name: str
    kind: Any
    """Its type."""

    default: "dataclasses.Field[Any]"
    text: str


@dataclasses.dataclass(frozen=True)
class Group:
    """Options that the help shows together."""

    owner: str
    """Name of the dataclass that the options belong to."""

    title: str
    options: Sequence[Option]


def groups_of(owner: str, kind: type) -> Iterator[Group]:
    """Yield the options of a dataclass, divided by its `GROUPS` if it has some."""
    kinds, texts = typing.get_type_hints(kind, include_extras=True), help_texts(kind)
    options = [
        Option(
            field.name,
            kinds[field.name],
            dataclasses.field(default=field.default, default_factory=field.default_factory),
            texts.get(field.name, ""),
        )
        for field in dataclasses.fields(kind)
    ]
    names = [option.name for option in options]
    starts = {
        title: names.index(first)
        for title, first in getattr(kind, "GROUPS", {owner: names[0]} if names else {}).items()
    }
    for title, start in starts.items():
        end = min((other for other in starts.values() if other > start), default=len(options))
        yield Group(owner, title, options[start:end])


def basic_options(groups: Sequence[Group], names: Sequence[str]) -> Group:
    """Return the named options in that order, each with the first sentence of its text."""
    known = {option.name: option for group in groups for option in group.options}
    options = [
        dataclasses.replace(known[name], text=re.split(r"(?<=\.) ", known[name].text, maxsplit=1)[0]) for name in names
    ]
    return Group("basic", "basic", options)


def command_type(groups: Sequence[Group]) -> type:
    """Return the dataclass by which tyro reads the options of groups: `group0`, `group1`, ..."""
    return dataclasses.make_dataclass("Command", [(f"group{i}", _flags(group)) for i, group in enumerate(groups)])


def _flags(group: Group) -> Any:
    """Return the type by which tyro reads the options of a group."""
    import tyro

    fields = [(option.name, Annotated[option.kind, _about(option)], option.default) for option in group.options]
    kind = dataclasses.make_dataclass("Group", fields, frozen=True, kw_only=True)
    return Annotated[kind, tyro.conf.arg(name=group.title)]


def _about(option: Option) -> object:
    import tyro

    return tyro.conf.arg(
        help=option.text,
        metavar=value_name(option.kind),
        help_behavior_hint=lambda default: "" if default in HIDDEN_DEFAULTS else f"(default: {default})",
    )


def value_name(kind: Any) -> str | None:
    """Return the name of an option's value in the help; None leaves it to tyro."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is Annotated:
        return value_name(args[0])
    if origin in (typing.Union, types.UnionType):
        others = [arg for arg in args if arg is not types.NoneType]
        return value_name(others[0]) if len(others) == 1 else None
    if origin is Literal:
        return f"{{{','.join(map(str, args))}}}"
    if origin is tuple and args[-1] is Ellipsis:
        return f"{value_name(args[0])} [...]"
    return VALUE_NAMES.get(kind)


def help_texts(kind: type) -> dict[str, str]:
    """Return option -> the text below its field, for a dataclass and the classes that it takes fields from."""
    texts: dict[str, str] = {}
    bases: list[type] = [*getattr(kind, "HELP_FROM", ()), *reversed(kind.__mro__)]
    for base in bases:
        if dataclasses.is_dataclass(base):
            body = cast("ast.ClassDef", ast.parse(textwrap.dedent(inspect.getsource(base))).body[0]).body
            for field, text in itertools.pairwise(body):
                if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr):
                    name, constant = cast("ast.Name", field.target), cast("ast.Constant", text.value)
                    texts[name.id] = " ".join(str(constant.value).split())
    return texts
