"""Lists: filters, order, pages."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

from sandbox.safe_service import clock, representation
from sandbox.safe_service.database import Database, Value
from sandbox.safe_service.errors import ApiError

_DEFAULT_LIMIT = 100
_MAX_LIMIT = 200
_COMPARISONS = {"": "=", "__gt": ">", "__gte": ">=", "__lt": "<", "__lte": "<="}
_ORDERS = {"nonce": "nonce", "created": "created", "modified": "modified"}
_EXECUTED = "executed_at IS NOT NULL"
_CONFIRMED = "EXISTS (SELECT 1 FROM confirmations c WHERE c.safe_tx_hash = transactions.safe_tx_hash)"


def transactions(
    database: Database, safe: str, query: Mapping[str, str], url: str, version: representation.ApiVersion
) -> dict[str, Any]:
    """A Safe's multisig transactions, highest nonce first.

    Args:
        database: where they are.
        safe: checksummed address.
        query: parameters as given; unknown ones are ignored.
        url: of the list, without query.
        version: whose types to use.

    Raises:
        ApiError: 400 for a parameter that cannot be read.
    """
    where = ["safe = ?"]
    values: list[Value] = [safe]
    for condition, value in _conditions(query):
        where.append(condition)
        values.extend(value)
    rows = f"FROM transactions WHERE {' AND '.join(where)}"
    count = _count(database, f"SELECT COUNT(*) {rows}", values)
    limit, offset = _window(query)
    page = database.all(f"SELECT * {rows} ORDER BY {_order(query)} LIMIT ? OFFSET ?", [*values, limit, offset])
    unique = _count(database, "SELECT COUNT(DISTINCT nonce) FROM transactions WHERE safe = ?", [safe])
    results = [representation.transaction(database, row, version) for row in page]
    return {**_envelope(count, results, query, url), "countUniqueNonce": unique}


def executed(database: Database, safe: str, query: Mapping[str, str], url: str) -> dict[str, Any]:
    """What `all-transactions` shows of a Safe that receives and sends nothing else: executions, newest first."""
    rows = f"FROM transactions WHERE safe = ? AND {_EXECUTED}"
    limit, offset = _window(query)
    page = database.all(f"SELECT * {rows} ORDER BY block_number DESC LIMIT ? OFFSET ?", [safe, limit, offset])
    extra = {"transfers": [], "txType": "MULTISIG_TRANSACTION"}
    results = [{**representation.transaction(database, row, "v2"), **extra} for row in page]
    return _envelope(_count(database, f"SELECT COUNT(*) {rows}", [safe]), results, query, url)


def paged(items: Sequence[Any], query: Mapping[str, str], url: str) -> dict[str, Any]:
    """One page of a short list."""
    limit, offset = _window(query)
    return _envelope(len(items), list(items[offset : offset + limit]), query, url)


def _conditions(query: Mapping[str, str]) -> list[tuple[str, list[Value]]]:
    found: list[tuple[str, list[Value]]] = []
    if _flag(query, "trusted") is not False:
        found.append(("trusted = 1", []))
    for name, condition in (("executed", _EXECUTED), ("has_confirmations", _CONFIRMED)):
        wanted = _flag(query, name)
        if wanted is not None:
            found.append((condition if wanted else f"NOT ({condition})", []))
    exact = (column for column in ("to", "transaction_hash") if query.get(column))
    found.extend((f'"{column}" = ?', [query[column]]) for column in exact)
    found += _comparisons(query, "nonce", "nonce", _number)
    found += _comparisons(query, "modified", "modified", _moment)
    found += _comparisons(query, "submission_date", "created", _moment)
    return found


def _comparisons(
    query: Mapping[str, str], parameter: str, column: str, read: Callable[[str, str], int]
) -> list[tuple[str, list[Value]]]:
    return [
        (f"{column} {sign} ?", [read(parameter + suffix, query[parameter + suffix])])
        for suffix, sign in _COMPARISONS.items()
        if query.get(parameter + suffix)
    ]


def _flag(query: Mapping[str, str], name: str) -> bool | None:
    return {"true": True, "false": False}.get(query.get(name, "").lower())


def _number(name: str, text: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise ApiError(400, {name: ["Enter a number."]}) from error


def _moment(name: str, text: str) -> int:
    try:
        return clock.parse(text)
    except ValueError as error:
        raise ApiError(400, {name: ["Enter a valid date/time."]}) from error


def _order(query: Mapping[str, str]) -> str:
    asked = query.get("ordering", "")
    column = _ORDERS.get(asked.removeprefix("-"))
    if column is None:
        return "nonce DESC, created DESC, rowid DESC"
    direction = "DESC" if asked.startswith("-") else "ASC"
    return f"{column} {direction}, created {direction}, rowid {direction}"


def _window(query: Mapping[str, str]) -> tuple[int, int]:
    def read(name: str, default: int) -> int:
        text = query.get(name, "")
        return int(text) if text.isdigit() else default

    return min(read("limit", 0) or _DEFAULT_LIMIT, _MAX_LIMIT), read("offset", 0)


def _count(database: Database, sql: str, values: list[Value]) -> int:
    row = database.one(sql, values)
    return int(row[0]) if row else 0


def _envelope(count: int, results: list[Any], query: Mapping[str, str], url: str) -> dict[str, Any]:
    limit, offset = _window(query)

    def page(start: int) -> str:
        parameters = {name: value for name, value in query.items() if name != "offset"}
        parameters["limit"] = str(limit)
        if start > 0:
            parameters["offset"] = str(start)
        return f"{url}?{urlencode(sorted(parameters.items()))}"

    following = page(offset + limit) if offset + limit < count else None
    previous = page(offset - limit) if offset > 0 else None
    return {"count": count, "next": following, "previous": previous, "results": results}
