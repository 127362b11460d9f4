"""Workspaces as lines for a terminal. What people wrote is escaped: a name must not move the cursor."""

from typing import Any

from service.client.text import shown

Json = dict[str, Any]


def standing(one: Json) -> str:
    """Whether a workspace is blocked, and by what."""
    return "BLOCKED by " + ", ".join(sorted({block["code"] for block in one["blocks"]})) if one["blocked"] else "ok"


def lines(one: Json) -> list[str]:
    """A workspace, what it registered, and what blocks it."""
    phala, deadlines, retention = one["phala"], one["deadlines"], one["retention"]
    return [
        f"{one['slug']}  {one['id']}  {shown(one['name'] or '')}".rstrip(),
        f"  Phala Cloud: {shown(phala['base_url'])}, API key set {phala['api_key_set_at']}",
        f"  its webhooks: {phala['webhook_secrets']} secrets, at {shown(phala['webhook_url'])}",
        _policy(one["policy"]),
        f"  deadlines: {deadlines['request_seconds']} s to the commit, {deadlines['run_seconds']} s to run",
        f"  commits: {_commits(one['commits'])}",
        f"  kept: events {_days(retention['events_days'])}, deliveries {_days(retention['deliveries_days'])}",
        *(f"  Safe {contract['eip3770'] or contract['id']}" for contract in one["safes"]),
        *(f"  external app {contract['eip3770'] or contract['id']}" for contract in one["external_apps"]),
        *(_block(block) for block in one["blocks"]),
    ]


def _policy(policy: Json) -> str:
    own = " (own only)" if policy["cancel_own_only"] else ""
    free = ", changes without approval" if policy["allow_without_approval"] else ""
    return f"  policy: submit {policy['submit']}, cancel {policy['cancel']}{own}, release {policy['release']}{free}"


def _commits(commits: Json) -> str:
    held = "held until released" if commits["policy"] == "hold" else "follow their approvals"
    frozen = ", FROZEN" if commits["frozen"] else ""
    return f"{held}, {commits['parallel']} CVMs of an app at a time{frozen}"


def _days(days: int | None) -> str:
    return "for good" if days is None else f"{days} d"


def _block(block: Json) -> str:
    subject = f" of {shown(block['subject'])}" if block["subject"] else ""
    return f"  BLOCKED since {block['since']}: {block['code']}{subject} ({shown(block['detail'])}): {block['advice']}"
