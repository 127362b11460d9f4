"""Lines for a terminal. Everything that came from elsewhere is escaped: a title must not move the cursor."""

import json
from typing import Any

Json = dict[str, Any]


def shown(value: object) -> str:
    """Text in which nothing controls a terminal: what is not printable stands there as its escape.

    That covers control characters, line separators and marks that change the direction of text.
    """
    return "".join(one if one.isprintable() else _escape(one) for one in str(value))


def document(value: object) -> str:
    """JSON in printable ASCII."""
    return json.dumps(value, indent=2, ensure_ascii=True)


def progress(request: Json) -> list[str]:
    """What is new to somebody who follows a change request; equal lists mean that nothing is."""
    lines = [f"{shown(request['state'])}: {shown(request['state_meaning'])}"]
    reason = request["reason"]
    if reason:
        detail = f" ({shown(reason['detail'])})" if reason["detail"] else ""
        lines.append(f"  {shown(reason['code'])}{detail}: {shown(reason['advice'])}")
    if request["state"] == "proposed" and request["approval"]:
        lines += _approval(request["approval"])
    execution = request["execution"]
    if execution:
        where = execution["explorer_url"] or execution["transaction_hash"] or f"block {execution['block_hash']}"
        lines.append(f"  approval seen: {shown(where)}")
    return lines


def summary(request: Json) -> list[str]:
    """A change request on some lines."""
    name = request["cvm"]["name"] or request["cvm"]["id"]
    lines = [f"{shown(request['id'])}  {shown(name)}  {shown(request['title'] or '')}".rstrip()]
    if request["change_reason"]:
        lines.append(f"  why: {shown(request['change_reason'])}")
    lines += [f"  see {shown(one)}" for one in request["change_links"]]
    lines += [f"  {shown(name)}={shown(value)}" for name, value in sorted(request["metadata"].items())]
    for name in ("retry_of", "supersedes", "superseded_by"):
        if request[name]:
            lines.append(f"  {name.replace('_', ' ')} {shown(request[name])}")
    if request["compose_hash"]:
        lines.append(f"  compose hash: {shown(request['compose_hash'])}")
    return lines + progress(request) + [f"  warning: {shown(one)}" for one in request["warnings"]]


def freeze(answer: Json) -> list[str]:
    """Whether commits are held, on one line."""
    if not answer["frozen"]:
        return ["commits go on"]
    return [f"commits are frozen since {shown(answer['frozen_at'])}: {shown(answer['reason'])}"]


def row(request: Json) -> str:
    """A change request on one line of a list."""
    name = request["cvm"]["name"] or request["cvm"]["id"]
    members = (request["id"], f"{request['state']:<10}", request["created_at"], name, request["title"] or "")
    return "  ".join(shown(one) for one in members).rstrip()


def event(one: Json) -> str:
    """An event on one line."""
    return f"{shown(one['seq']):>4}  {shown(one['timestamp'])}  {shown(one['type'])}  {shown(one['state'])}"


def problem(answer: Json, status: int, request_id: str | None) -> str:
    """An RFC 9457 problem on one line: what, what to do, where, and the request id for the operator."""
    parts = [str(answer.get("title") or f"HTTP {status}")]
    if answer.get("detail"):
        parts.append(str(answer["detail"]))
    errors = answer.get("errors")
    for error in errors if isinstance(errors, list) else []:
        members = error.values() if isinstance(error, dict) else [error]
        parts.append(" ".join(str(one) for one in members))
    slug = str(answer.get("type") or "").rpartition("/")[2]
    known = f"{status} {slug}".rstrip() + (f", request {request_id}" if request_id else "")
    return shown(f"{'; '.join(parts)} [{known}]")


def _approval(approval: Json) -> list[str]:
    if approval["kind"] != "safe":
        return [f"  {shown(approval['note'])}"]
    lines = []
    signed, threshold = approval["confirmations"], approval["threshold"]
    if threshold is not None:
        missing = max(threshold - len(signed), 0)
        by = f" by {', '.join(shown(one) for one in signed)}" if signed else ""
        lines.append(f"  signed{by}: {len(signed)} of {threshold}, {missing} missing")
    if approval["ready"]:
        lines.append("  enough owners signed: one of them has to execute it")
    elif approval["missing"]:
        lines.append(f"  not yet signed by {', '.join(shown(one) for one in approval['missing'])}")
    lines += [f"  {shown(one['code'])}: {shown(one['message'])}; {shown(one['advice'])}" for one in approval["alerts"]]
    link = approval["links"]["safe_app_transaction"] or approval["links"]["safe_app_queue"]
    if link:
        lines.append(f"  sign at {shown(link)}")
    return lines


def _escape(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")
