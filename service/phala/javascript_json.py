"""JSON as JavaScript reads and writes it: the form in which the official SDK speaks and hashes.

Differences to Python's ``json`` that matter: all numbers are IEEE doubles (integers beyond 2**53 are rounded, ``1.0``
prints ``1``, ``1e400`` becomes ``null``), numbers print by ECMAScript's Number-to-string, members named like array
indexes come first in numeric order, lone surrogates are written as escapes.
"""

from __future__ import annotations

import json
import math
import re
from decimal import Decimal
from itertools import repeat
from json.encoder import encode_basestring
from typing import TYPE_CHECKING, Any, Final, NoReturn

from service.phala.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_EXACT: Final = 2**53
_MAX_INDEX: Final = 2**32 - 2
_INDEX: Final = re.compile(r"0|[1-9][0-9]{0,9}")
_DIGITS: Final = frozenset("0123456789")
_STRING_OR_BRACKET: Final = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{}]', re.DOTALL)
MAX_DEPTH: Final = 500
"""Levels of nesting beyond which JSON is refused; an app-compose has a handful."""
_LONE_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_PLAIN_DECIMAL_FROM: Final = 1e-6
_EXPONENT_FROM: Final = 1e21


def parse(text: str) -> object:
    """Read JSON text as ``JSON.parse`` does.

    Raises:
        InvalidArgument: no JSON (``NaN`` and ``Infinity`` included), or nested too deeply.
    """
    if _nested_too_deeply(text):
        raise InvalidArgument("JSON nested too deeply")
    try:
        return json.loads(text, parse_int=_parse_int, parse_constant=_refuse_constant)
    except ValueError as exc:
        raise InvalidArgument(f"not JSON: {exc}") from None


def _nested_too_deeply(text: str) -> bool:
    """Whether brackets nest beyond ``MAX_DEPTH``.

    The interpreter's recursion limit is no protection: some libraries raise it so far that the parser overflows the
    C stack before it is reached.
    """
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return False
    depth = 0
    for match in _STRING_OR_BRACKET.finditer(text):
        token = match[0]
        if token in {"[", "{"}:
            depth += 1
            if depth > MAX_DEPTH:
                return True
        elif token in {"]", "}"}:
            depth -= 1
    return False


def _parse_int(digits: str) -> int | float:
    # float() takes any number of digits, int() refuses thousands of them
    return int(digits) if len(digits) < 17 else float(digits)  # noqa: PLR2004 - 2**53 has 16 digits


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON value")


def number(value: float) -> str:
    """A number as JavaScript prints it; NaN and the infinities print ``null``."""
    if isinstance(value, int):
        if -_EXACT <= value <= _EXACT:
            return str(value)
        try:
            value = float(value)
        except OverflowError:
            return "null"
    if not math.isfinite(value):
        return "null"
    if value == 0:
        return "0"
    shortest = repr(value)  # the same shortest digits as in JavaScript; only the notation differs
    if _PLAIN_DECIMAL_FROM <= abs(value) < _EXPONENT_FROM:
        return f"{Decimal(shortest):f}".removesuffix(".0")
    return re.sub(r"e([+-])0*", r"e\1", shortest).replace(".0e", "e")


def utf16_units(text: str) -> bytes:
    """Sort key that orders text by UTF-16 code units, as JavaScript compares strings."""
    return text.encode("utf-16-be", "surrogatepass")


def _members(value: Mapping[Any, Any], *, ordered: bool) -> list[str]:
    names = list(value)
    try:
        plain = "".join(names).isascii()
    except TypeError:
        raise InvalidArgument("a JSON member name must be text") from None
    if ordered:
        names.sort(key=None if plain else utf16_units)
    indexes = [name for name in names if name[:1] in _DIGITS and _INDEX.fullmatch(name) and int(name) <= _MAX_INDEX]
    if not indexes:
        return names
    others = set(indexes)
    return sorted(indexes, key=int) + [name for name in names if name not in others]


def stringify(value: object, *, ordered: bool = False, indent: int = 0) -> str:
    """Write a value as ``JSON.stringify`` does.

    Args:
        value: None, bool, int, float, str, and dicts, lists and tuples of them.
        ordered: sort the members of every object by UTF-16 code units.
        indent: spaces per level; 0 writes no white space at all.

    Raises:
        InvalidArgument: a value of another type, a member name that is no text, a cycle or too deep a nesting.
    """
    writer = _Writer(ordered=ordered, indent=" " * indent)
    try:
        writer.write(value, "\n" if indent else "")
    except RecursionError:
        raise InvalidArgument("the document is nested too deeply, or contains itself") from None
    return _escape_lone_surrogates("".join(writer.pieces))


class _Writer:
    """One run over a value. ``newline`` starts a line at the current depth; without an indent it is empty."""

    def __init__(self, *, ordered: bool, indent: str) -> None:
        self.pieces: list[str] = []
        self._ordered = ordered
        self._indent = indent
        self._colon = ": " if indent else ":"

    def write(self, value: object, newline: str) -> None:
        if isinstance(value, str):
            self.pieces.append(encode_basestring(value))
        elif isinstance(value, dict):
            names = _members(value, ordered=self._ordered)
            heads = [encode_basestring(name) + self._colon for name in names]
            self._items("{}", heads, [value[name] for name in names], newline)
        elif isinstance(value, list | tuple):
            self._items("[]", repeat(""), value, newline)
        elif value is None:
            self.pieces.append("null")
        elif isinstance(value, bool):
            self.pieces.append("true" if value else "false")
        elif isinstance(value, int | float):
            self.pieces.append(number(value))
        else:
            raise InvalidArgument(f"{type(value).__name__} is no JSON value")

    def _items(self, brackets: str, heads: Iterable[str], items: Sequence[object], newline: str) -> None:
        if not items:
            self.pieces.append(brackets)
            return
        inner = newline + self._indent
        separator = brackets[0] + inner
        for head, item in zip(heads, items, strict=False):
            self.pieces.append(separator + head)
            self.write(item, inner)
            separator = "," + inner
        self.pieces.append(newline + brackets[1])


def _escape_lone_surrogates(text: str) -> str:
    if text.isascii() or not _LONE_SURROGATE.search(text):
        return text
    # two escapes read apart may form a pair: as in JavaScript, that is one character
    joined = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
    return _LONE_SURROGATE.sub(lambda lone: f"\\u{ord(lone[0]):04x}", joined)
