"""Types of members and parameters, shared by bodies and queries."""

import re
from datetime import datetime
from typing import Annotated, Final

from eth_utils.address import is_checksum_address
from pydantic import AfterValidator, AwareDatetime, BeforeValidator, Field, SecretStr, StringConstraints

from service.domain import chain_names, hexes

NO_NUL: Final = r"^[^\x00]*$"
"""PostgreSQL cannot store a NUL character in text."""
ONE_LINE: Final = r"^[^\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]*$"
"""No control characters, no line breaks, and nothing that turns the direction of the text around it."""
LINES: Final = r"^[^\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]*$"
"""The same with tabs and line breaks."""
METADATA_KEY: Final = r"^[^\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\[\]]{1,40}$"
HTTPS_URL: Final = (
    r"^https://[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?(?::[0-9]{1,5})?"
    r"(?:[/?#][A-Za-z0-9._~:/?#@!$&'()*+,;=%\[\]-]*)?$"
)
"""Without user and password: they would be shown to everybody who reads the change request."""
CVM_ID: Final = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,127}$"

_FIRST_YEAR, _LAST_YEAR = 2000, 9000
_HEX_PAIRS = re.compile(r"(?:[0-9a-fA-F]{2})+\Z")
_SHORT_NAME = re.compile(r"[a-z0-9-]{1,32}\Z")
_TOKEN = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.IGNORECASE)
UUID: Final = re.compile(r"[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}", re.IGNORECASE)
_COMMIT_PATH = re.compile(
    r"/cvms/([0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12})/commit-update(?:[?#]|\Z)", re.IGNORECASE
)

Text = Annotated[str, StringConstraints(pattern=NO_NUL)]
Line = Annotated[str, StringConstraints(pattern=ONE_LINE, min_length=1, max_length=200)]
Lines = Annotated[str, StringConstraints(pattern=LINES, min_length=1, max_length=2000)]
Link = Annotated[str, StringConstraints(pattern=HTTPS_URL, max_length=1000)]
Metadata = Annotated[
    dict[
        Annotated[str, StringConstraints(pattern=METADATA_KEY)],
        Annotated[str, StringConstraints(pattern=LINES, max_length=500)],
    ],
    Field(max_length=50),
]


def _address(value: str) -> str:
    digits = value.removeprefix("0x")
    if value != digits and digits not in (digits.lower(), digits.upper()) and not is_checksum_address(value):
        hexes.address(value)  # a wrong length is the better message
        raise ValueError("its EIP-55 checksum is wrong: check the address, or give it in lower case")
    return hexes.address(value)


def _app_address(value: str) -> str:
    short_name, address = chain_names.split(value)
    if short_name is None:
        return _address(address)
    if not _SHORT_NAME.match(short_name):
        raise ValueError("expected a chain's short name before the colon, as in base:0x...")
    return f"{short_name}:{_address(address)}"


def _written_time(value: object) -> object:
    if not isinstance(value, str):
        raise ValueError("expected a time as text, such as 2026-07-01T09:30:00Z")  # noqa: TRY004 - pydantic's protocol
    return value


def _near_time(value: datetime) -> datetime:
    if not _FIRST_YEAR <= value.year < _LAST_YEAR:
        raise ValueError("is in no year that a change request could live in")
    return value


def _encrypted_env(value: str) -> str:
    if not _HEX_PAIRS.match(value):
        raise ValueError("expected hex digits of whole bytes, without 0x")
    return value


def _commit_token(value: SecretStr) -> SecretStr:
    if not _TOKEN.fullmatch(value.get_secret_value()):
        raise ValueError("expected a UUID with dashes")
    return value


def _cvm_id(value: str) -> str:
    if re.match(r"0x[0-9a-fA-F]{40}\Z", value):
        _address(value)
    return value


def vm_uuid_in(commit_url: str) -> str | None:
    """The lower-case dashed vm uuid in the path of an ``api_commit_url``."""
    match = _COMMIT_PATH.search(commit_url)
    return None if match is None else dashed(match.group(1))


def dashed(uuid: str) -> str:
    """A UUID of 32 hex digits, dashed or not, as lower-case dashed text."""
    digits = uuid.replace("-", "").lower()
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


Time = Annotated[AwareDatetime, BeforeValidator(_written_time), AfterValidator(_near_time), Field(strict=False)]
Bytes32 = Annotated[str, AfterValidator(hexes.bytes32), Field(json_schema_extra={"pattern": "^(0x)?[0-9a-fA-F]{64}$"})]
AppAddress = Annotated[
    str,
    AfterValidator(_app_address),
    Field(json_schema_extra={"pattern": "^([a-z0-9-]{1,32}:)?(0x)?[0-9a-fA-F]{40}$"}),
]
EncryptedEnv = Annotated[
    str, AfterValidator(_encrypted_env), Field(json_schema_extra={"pattern": "^([0-9a-fA-F]{2})+$"})
]
CommitToken = Annotated[SecretStr, AfterValidator(_commit_token), Field(json_schema_extra={"format": "uuid"})]
CvmId = Annotated[
    str,
    StringConstraints(pattern=CVM_ID),
    AfterValidator(_cvm_id),
    Field(
        description="The CVM as Phala Cloud names it: its `cvm_...` id, vm uuid, name, app id (`app_...` or `0x...`) "
        "or `instance_...` id"
    ),
]
