"""Which CVM a call means, and how that is written into a path.

The rules are those of the official SDK (0.2.9), observed request by request; the one difference is that path segments
are percent-quoted here, so that no identifier can change the target of a call.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, TypedDict
from urllib.parse import quote

from service.phala.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Mapping

_UUID4: Final = re.compile(r"[0-9a-f]{8}-?[0-9a-f]{4}-?4[0-9a-f]{3}-?[89ab][0-9a-f]{3}-?[0-9a-f]{12}", re.IGNORECASE)
_HEX40: Final = re.compile(r"[0-9a-f]{40}", re.IGNORECASE)
_NAME: Final = re.compile(r"(?=.{5,63}\Z)[A-Za-z](?:[A-Za-z0-9]|-(?!-))*[A-Za-z0-9]\Z")
_ORDER: Final = ("id", "uuid", "app_id", "instance_id", "name")
_COMPOSE_FILE_ORDER: Final = ("id", "uuid", "app_id", "instance_id")


class CvmIdentifier(TypedDict, total=False):
    """How a call names its CVM; at least one non-empty member, the first in this order counts.

    Attributes:
        id: anything the API takes: ``cvm_...``, a name, a UUID, an app id. Integer ids of older answers too.
        uuid: a version 4 UUID, dashes optional.
        app_id: 40 hex digits, bare or prefixed (``0x``, ``app_``). Refused by the server if several CVMs share it.
        instance_id: pass it as ``instance_<hex>``: bare 40 hex digits are taken for an app id by the API.
        name: 5 to 63 letters, digits and single hyphens, a letter first.
    """

    id: str | int | None
    uuid: str | None
    app_id: str | None
    instance_id: str | None
    name: str | None


def split(given: Mapping[str, object], members: tuple[str, ...]) -> tuple[dict[str, object], dict[str, object]]:
    """Separate the identifier from the other arguments of a call.

    Returns:
        The identifier's members, and of ``members`` those that are not None, in that order.

    Raises:
        InvalidArgument: an argument that is neither. The API would drop it in silence.
    """
    unknown = sorted(set(given) - set(_ORDER) - set(members))
    if unknown:
        raise InvalidArgument(f"unknown argument {', '.join(unknown)}")
    identifier = {name: given[name] for name in _ORDER if name in given}
    return identifier, {name: given[name] for name in members if given.get(name) is not None}


def _first(given: Mapping[str, object], order: tuple[str, ...]) -> tuple[str, str]:
    unknown = sorted(set(given) - set(_ORDER))
    if unknown:
        raise InvalidArgument(f"unknown argument {', '.join(unknown)}")
    for member in order:
        value = given.get(member)
        if value is not None and value != "":
            if isinstance(value, bool) or not isinstance(value, str | int):
                raise InvalidArgument(f"{member} must be text, got {type(value).__name__}")
            return member, str(value)
    raise InvalidArgument(f"one of {', '.join(order)} must be given")


def cvm_segment(given: Mapping[str, object]) -> str:
    """Path segment (not yet quoted) of the CVM that ``given`` names, by the rules of most functions.

    Raises:
        InvalidArgument: no member, or a ``uuid`` or ``name`` of the wrong form.
    """
    member, value = _first(given, _ORDER)
    if member == "name":
        if not _NAME.match(value):
            raise InvalidArgument(
                "name must have 5 to 63 letters, digits and single hyphens, a letter first and no hyphen last"
            )
        return value
    if _UUID4.fullmatch(value):
        return value.replace("-", "")
    if member == "uuid":
        raise InvalidArgument("uuid must be a version 4 UUID")
    return f"app_{value}" if _HEX40.fullmatch(value) else value


def compose_file_segment(given: Mapping[str, object]) -> str:
    """The same for the two compose_file functions, whose rules differ: nothing is normalised, ids get their prefix.

    Raises:
        InvalidArgument: no member (``name`` does not count here), or one of the wrong form.
    """
    member, value = _first(given, _COMPOSE_FILE_ORDER)
    if member == "uuid" and not _UUID4.fullmatch(value):
        raise InvalidArgument("uuid must be a version 4 UUID")
    if member in ("app_id", "instance_id"):
        prefix = member.removesuffix("id")
        if value.startswith(prefix) or len(value) != 40:  # noqa: PLR2004 - hex digits of 20 bytes
            raise InvalidArgument(f"{member} must have 40 characters and no prefix here")
        return prefix + value
    return value


def path(*segments: str) -> str:
    """Join path segments, each percent-quoted.

    Raises:
        InvalidArgument: an empty segment, ``.`` or ``..`` (which would name another resource), or text that is
            not valid Unicode.
    """
    for segment in segments:
        if segment in ("", ".", ".."):
            raise InvalidArgument(f"{segment!r} cannot be an identifier")
    try:
        return "/" + "/".join(quote(segment, safe="") for segment in segments)
    except UnicodeEncodeError:
        raise InvalidArgument("an identifier is not valid Unicode text") from None


def _bare_hex(value: str, digits: int, what: str) -> str:
    bare = value[2:] if value[:2] in ("0x", "0X") else value
    if len(bare) != digits or not re.fullmatch(r"[0-9a-fA-F]+", bare):
        raise InvalidArgument(f"{what} must have {digits} hex digits, with or without 0x")
    return bare.lower()


def normalize_compose_hash(value: str) -> str:
    """The 64 lower-case hex digits of a compose hash, without ``0x``.

    Raises:
        InvalidArgument: anything else than 64 hex digits with an optional ``0x``.
    """
    return _bare_hex(value, 64, "a compose hash")


def normalize_device_id(value: str) -> str:
    """The 64 lower-case hex digits of a device id, without ``0x``. Raises `InvalidArgument` as above."""
    return _bare_hex(value, 64, "a device id")


def normalize_app_id(value: str) -> str:
    """The 40 lower-case hex digits of an app id (its contract address), without ``0x``. Raises as above."""
    return _bare_hex(value, 40, "an app id")
