"""Delegates: who may propose in an owner's name."""

import sqlite3
from collections.abc import Mapping
from typing import Any

from sandbox.safe_service import clock, representation
from sandbox.safe_service.chain_view import NoSafeError
from sandbox.safe_service.errors import ApiError, refused
from sandbox.safe_service.forms import Form
from sandbox.safe_service.messages import delegate_digests
from sandbox.safe_service.service import Service
from sandbox.safe_service.signatures import RECOVERED, SIZE, parse_signatures

_FILTERS = ("safe", "delegate", "delegator", "label")
_LABEL_LENGTH = 50


def valid_for(service: Service, safe: str, owners: list[str]) -> list[sqlite3.Row]:
    """The delegates who may propose for a Safe now: for it or for all, not expired, of a present owner."""
    rows = service.database.all(
        "SELECT * FROM delegates WHERE (safe = ? OR safe IS NULL) AND (expires IS NULL OR expires > ?) ORDER BY id",
        [safe, service.micros()],
    )
    return [row for row in rows if row["delegator"] in owners]


def add(service: Service, body: dict[str, Any]) -> dict[str, Any]:
    """Add a delegate, or change the label of one.

    Raises:
        ApiError: 400 for a bad field or a signature that is not the delegator's.
    """
    form = Form(body)
    safe = form.address("safe", required=False)
    delegate, delegator = form.address("delegate") or "", form.address("delegator") or ""
    signature = form.hexadecimal("signature", minimum=SIZE) or b""
    label = form.text("label", _LABEL_LENGTH) or ""
    form.finish(400)
    expires = _expiry(service, body.get("expiryDate"))
    _check_delegator(service, safe, delegator)
    if not _signed_by(service, delegate, signature, {delegator}):
        raise refused(400, f"Signature does not match provided delegator={delegator}")
    key = {"safe": safe, "delegate": delegate, "delegator": delegator}
    with service.database.transaction():
        service.database.run(
            "DELETE FROM delegates WHERE safe IS ? AND delegate = ? AND delegator = ?", [*key.values()]
        )
        service.database.insert("delegates", {**key, "label": label, "expires": expires})
    return {**key, "signature": body["signature"], "label": label, "expiryDate": clock.show(expires)}


def remove(service: Service, delegate: str, body: dict[str, Any]) -> None:
    """Remove a delegate; without a Safe in the body, from every Safe.

    Raises:
        ApiError: 400 for a signature of neither delegator nor delegate, 404 if there is none.
    """
    form = Form(body)
    safe = form.address("safe", required=False)
    delegator = form.address("delegator") or ""
    signature = form.hexadecimal("signature", minimum=SIZE) or b""
    form.finish(400)
    _check_delegator(service, safe, delegator)
    if not _signed_by(service, delegate, signature, {delegator, delegate}):
        message = f"Signature does not match provided delegate={delegate} or delegator={delegator}"
        raise refused(400, message)
    removed = service.database.run(
        "DELETE FROM delegates WHERE delegate = ?1 AND delegator = ?2 AND (?3 IS NULL OR safe = ?3)",
        [delegate, delegator, safe],
    )
    if not removed:
        raise ApiError(404)


def listed(service: Service, query: Mapping[str, str]) -> list[dict[str, Any]]:
    """The delegates that match every filter given; at least one must be.

    Raises:
        ApiError: 400 without any filter.
    """
    filters = {name: query[name] for name in _FILTERS if query.get(name)}
    if not filters:
        raise ApiError(400, ["At least one query param must be provided"])
    where = " AND ".join(f"{name} = ?" for name in filters)
    sql = f"SELECT * FROM delegates WHERE {where} ORDER BY id"  # noqa: S608 - names from _FILTERS, values bound
    return [representation.delegate(row) for row in service.database.all(sql, list(filters.values()))]


def _expiry(service: Service, given: object) -> int | None:
    if given is None:
        return None
    try:
        expires = clock.parse(str(given))
    except ValueError as error:
        raise ApiError(400, {"expiryDate": ["Datetime has wrong format."]}) from error
    if expires <= service.micros():
        raise ApiError(400, {"expiryDate": ["`expiry_date` cannot be previous to the current timestamp"]})
    return expires


def _check_delegator(service: Service, safe: str | None, delegator: str) -> None:
    if safe is None:
        return
    if service.database.one("SELECT 1 FROM safes WHERE address = ?", [safe]) is None:
        raise refused(400, f"Safe={safe} does not exist or it's still not indexed")
    try:
        owners = service.chain.owners(safe)
    except NoSafeError:
        owners = []
    if delegator not in owners:
        raise refused(400, f"Provided delegator={delegator} is not an owner of Safe={safe}")


def _signed_by(service: Service, delegate: str, signature: bytes, signers: set[str]) -> bool:
    for digest in delegate_digests(delegate, service.chain.chain_id, service.now()):
        parsed = parse_signatures(signature, digest)
        if len(parsed) > 1:
            raise refused(400, "More than one signatures detected, just one is expected")
        if parsed[0].owner in signers and parsed[0].kind in RECOVERED:
            return True
    return False
