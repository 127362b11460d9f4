"""Reading JSON bodies field by field, with the messages of Django REST framework."""

import json
import re
from typing import Any

from eth_utils.address import is_checksum_address

from sandbox.safe_service.errors import ApiError

_MAX_INTEGER = 2**63 - 1  # nonces are sorted by SQLite, whose integers end here
_REQUIRED = "This field is required."
_NULL = "This field may not be null."


def parse_json(content_type: str, raw: bytes) -> object:
    """Parse a body.

    Raises:
        ApiError: 415 for another media type than JSON, 400 for what does not parse.
    """
    media_type = content_type.split(";", maxsplit=1)[0].strip()
    if media_type != "application/json":
        raise ApiError(415, {"detail": f'Unsupported media type "{content_type}" in request.'})
    try:
        return json.loads(raw)
    except ValueError as error:
        raise ApiError(400, {"detail": f"JSON parse error - {error}"}) from error


class Form:
    """The fields of one body; errors of all fields are gathered and raised together by `finish`."""

    def __init__(self, body: dict[str, Any]) -> None:
        self._body = body
        self._errors: dict[str, list[str]] = {}

    def finish(self, status: int) -> None:
        """Raise what was found wrong, if anything.

        Raises:
            ApiError: with the given status and a list of messages per field.
        """
        if self._errors:
            raise ApiError(status, self._errors)

    def _value(self, name: str, *, required: bool, nullable: bool) -> Any:  # noqa: ANN401 - any JSON
        value = self._body.get(name)
        if name not in self._body and required:
            self._fail(name, _REQUIRED)
        elif name in self._body and value is None and not nullable:
            self._fail(name, _NULL)
        return value

    def _fail(self, name: str, message: str) -> None:
        self._errors.setdefault(name, []).append(message)

    def integer(self, name: str, maximum: int | None = None) -> int:
        """A required whole number from 0, as JSON number or decimal string."""
        value = self._value(name, required=True, nullable=False)
        if value is None:
            return 0
        if isinstance(value, bool) or not re.fullmatch(r"-?\d+", str(value)):
            self._fail(name, "A valid integer is required.")
            return 0
        number = int(value)
        if number < 0:
            self._fail(name, "Ensure this value is greater than or equal to 0.")
        if maximum is not None and number > maximum:
            self._fail(name, f"Ensure this value is less than or equal to {maximum}.")
        return number

    def nonce(self, name: str) -> int:
        """A Safe nonce."""
        return self.integer(name, _MAX_INTEGER)

    def address(self, name: str, *, required: bool = True) -> str | None:
        """A checksummed address; None where it is not required and absent or null."""
        value = self._value(name, required=required, nullable=not required)
        if value is None:
            return None
        if not is_checksum_address(value):
            self._fail(name, f"Address {value} is not checksumed")
        return str(value)

    def hexadecimal(self, name: str, *, minimum: int = 0, required: bool = True) -> bytes | None:
        """0x-prefixed bytes, at least `minimum` of them; None where not required and absent, null or empty."""
        value = self._value(name, required=required, nullable=not required)
        if value is None or (value in ("", "0x") and not required):
            return None
        try:
            content = bytes.fromhex(str(value).removeprefix("0x"))
        except ValueError:
            self._fail(name, f"{value} is not an hexadecimal value.")
            return None
        if len(content) < minimum:
            self._fail(name, f"Ensure this field has at least {minimum} hexadecimal chars (not counting 0x).")
        return content

    def text(self, name: str, maximum: int, *, required: bool = True) -> str | None:
        """A string of at most `maximum` characters."""
        value = self._value(name, required=required, nullable=not required)
        if value is None:
            return None
        if not isinstance(value, str):
            self._fail(name, "Not a valid string.")
        elif len(value) > maximum:
            self._fail(name, f"Ensure this field has no more than {maximum} characters.")
        return str(value)
