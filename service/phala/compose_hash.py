"""The compose hash: sha256 over a canonical text of the app-compose document.

Three canonical texts are in use; the reference are the official packages ``@phala/cloud`` 0.2.9 and
``@phala/dstack-sdk`` 0.5.7:

* ``compact``: members sorted, no white space. What current CVMs measure, and the one to compare with.
* ``normalized``: the same after leaving out what the runner does not use.
* ``pretty``: normalized, indented by four, and every quote-colon-space in the text shortened to quote-colon, **inside
  strings too**. Different documents can share this text: it is for recognising CVMs of 2025, never for approving.

The hash to register on chain is always the one the server answers: it adds members of its own to the document. A hash
computed here is evidence beside it.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Literal

from service.phala import javascript_json
from service.phala.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Mapping

HashForm = Literal["compact", "normalized", "pretty"]
_UNUSED_BY_RUNNER = {"bash": "docker_compose_file", "docker-compose": "bash_script"}
#: Such a member switches off the sorting of the official packages (``constructor``) or vanishes from the hashed
#: text (``__proto__``): what would be approved is not what the document says.
_TREACHEROUS = frozenset({"constructor", "__proto__"})


def compose_hash(document: Mapping[str, Any] | str, form: HashForm = "compact") -> str:
    """Hash of an app-compose document: 64 lower-case hex digits, without ``0x``.

    Args:
        document: the document, or its JSON text (read as JavaScript reads it: the last of duplicate members wins,
            numbers are doubles). The document is not changed.
        form: the canonical text to hash, see the module.

    Raises:
        InvalidArgument: see `canonical_app_compose`.
    """
    return hashlib.sha256(canonical_app_compose(document, form).encode()).hexdigest()


def canonical_app_compose(document: Mapping[str, Any] | str, form: HashForm = "compact") -> str:
    """The text whose UTF-8 bytes are hashed.

    Raises:
        InvalidArgument: the document is no JSON object, holds something JSON cannot say, is nested too deeply, or has a
            member named ``constructor`` or ``__proto__`` at any depth (official tools hash such documents in ways that
            hide content).
    """
    value = javascript_json.parse(document) if isinstance(document, str) else dict(document)
    if not isinstance(value, dict):
        raise InvalidArgument("an app-compose document is a JSON object")
    try:
        _refuse_treacherous(value)
    except RecursionError:
        raise InvalidArgument("the document is nested too deeply, or contains itself") from None
    if form == "compact":
        return javascript_json.stringify(value, ordered=True)
    normalized = _normalized(value)
    if form == "normalized":
        return javascript_json.stringify(normalized, ordered=True)
    if form == "pretty":
        return javascript_json.stringify(normalized, ordered=True, indent=4).replace('": ', '":')
    raise InvalidArgument(f"form must be compact, normalized or pretty, not {form!r}")


def _refuse_treacherous(value: object) -> None:
    if isinstance(value, dict):
        if not _TREACHEROUS.isdisjoint(value):
            found = min(_TREACHEROUS.intersection(value))
            raise InvalidArgument(f"a member named {found!r} makes the compose hash ambiguous: refused")
        value = list(value.values())
    if isinstance(value, list | tuple):
        for item in value:
            if isinstance(item, dict | list | tuple):
                _refuse_treacherous(item)


def _normalized(value: dict[str, Any]) -> dict[str, Any]:
    runner = value.get("runner")
    unused = _UNUSED_BY_RUNNER.get(runner) if isinstance(runner, str) else None
    script = value.get("pre_launch_script")
    # JavaScript's falsy values: an empty list or object is not among them
    empty_script = not isinstance(script, dict | list | tuple) and (not script or script != script)  # noqa: PLR0124 - NaN
    return {
        name: item
        for name, item in value.items()
        if name != unused and not (name == "pre_launch_script" and empty_script)
    }
