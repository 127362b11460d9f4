"""What Phala Cloud told in vain: which events never arrived, which to ask for again, and what people are told. Pure.

Phala Cloud tries four times in 71 minutes and then gives up. Its list of deliveries says so, and sends an event again
when asked to, under a new id that names the first one. All ids of one event are looked at together here.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final
from urllib.parse import urlsplit

from service.domain.errors import CountersignError
from service.domain.phala_facts import Hook, HookDelivery
from service.domain.prepares import TOKEN_LIFETIME

PENDING_APPROVAL: Final = "cvm.update.pending_approval"

GIVES_UP_AFTER: Final = timedelta(hours=2)
"""By then Phala Cloud has tried for the last time (after 71 minutes), whatever its list says."""

ASKED_AGAIN_AFTER: Final = timedelta(minutes=75)
"""An event that was asked for is tried for 71 minutes, too."""

ASKS_PER_EVENT: Final = 5
ASKS_PER_LOOK: Final = 20


@dataclass(frozen=True, slots=True)
class Account:
    """What is known of an account at Phala Cloud whose webhooks lead here.

    Attributes:
        hook_url: of the workspace's receiver.
        hook_path: the path of it.
        settled_to: before this moment no delivery is left to be looked at, by Phala Cloud's clock.
        apps: contracts whose pending updates are to be looked at this time.
    """

    hook_url: str
    hook_path: str
    settled_to: datetime | None
    apps: tuple[str, ...]


class AccountAlert(StrEnum):
    """Public code of what a workspace is told about its account at Phala Cloud, stable."""

    WEBHOOK_NOT_REGISTERED = "webhook_not_registered"
    WEBHOOK_DISABLED = "webhook_disabled"
    WEBHOOK_NOT_SUBSCRIBED = "webhook_not_subscribed"
    WEBHOOKS_NOT_LISTED = "webhooks_not_listed"
    EVENTS_LOST = "events_lost"
    UNKNOWN_UPDATE = "unknown_update"


ACCOUNT_ADVICE: Final[dict[AccountAlert, str]] = {
    AccountAlert.WEBHOOK_NOT_REGISTERED: (
        "Register the URL at Phala Cloud for cvm.update.pending_approval and put its secret into the workspace, or "
        "take the secrets out of the workspace if its events are not wanted."
    ),
    AccountAlert.WEBHOOK_DISABLED: "Enable the webhook at Phala Cloud; what it missed is not sent by itself.",
    AccountAlert.WEBHOOK_NOT_SUBSCRIBED: "Add cvm.update.pending_approval to the webhook's events at Phala Cloud.",
    AccountAlert.WEBHOOKS_NOT_LISTED: (
        "Events that do not arrive cannot be found: check that the workspace's Phala API key may read webhooks."
    ),
    AccountAlert.EVENTS_LOST: (
        "Check that Phala Cloud reaches the URL and that the workspace has the webhook's secret, then prepare these "
        "updates again."
    ),
    AccountAlert.UNKNOWN_UPDATE: (
        "Nothing is done about it: its token is not known here. Prepare it again if it is wanted."
    ),
}


@dataclass(frozen=True, slots=True)
class AccountTrouble:
    """One thing about the account that wants a person's eyes.

    Attributes:
        subject: what it is about, where a code can hold for several things at once.
        message: one line for people.
        app_contract: of which app.
        patience: it is told only when it holds for so long.
    """

    code: AccountAlert
    message: str
    subject: str = ""
    app_contract: str | None = None
    patience: timedelta = timedelta(0)


@dataclass(frozen=True, slots=True)
class Asked:
    """How often an event was asked for, and when last."""

    times: int
    at: datetime


@dataclass(frozen=True, slots=True)
class Missed:
    """Events that did not arrive.

    Attributes:
        ask: ids of those to be asked for now, the newest first.
        lost: ids of those that were asked for in vain as often as they are.
        settled_to: before this moment nothing is left to be looked at, by Phala Cloud's clock.
    """

    ask: tuple[str, ...]
    lost: tuple[str, ...]
    settled_to: datetime


@dataclass(frozen=True, slots=True)
class Recovery:
    """What a look at an account found.

    Attributes:
        settled_to: see ``Missed``; ``None`` when the deliveries were not looked at.
        troubles: what holds now.
        looked_for: codes of which all that holds is in ``troubles``; of ``UNKNOWN_UPDATE`` for ``apps`` only.
        apps: whose pending updates were looked at, in the order of the account's.
        fault: what kept the look from being whole.
    """

    settled_to: datetime | None
    troubles: tuple[AccountTrouble, ...]
    looked_for: frozenset[AccountAlert]
    apps: tuple[str, ...] = ()
    fault: CountersignError | None = None


def ours(hooks: Iterable[Hook], url: str, path: str) -> tuple[Hook, ...]:
    """Those of the account's webhooks that lead here.

    Args:
        hooks: all of the account.
        url: under which this service thinks it is reached.
        path: of the workspace's receiver; counts where no URL is the same, as there may be another way in.
    """
    listed = tuple(hooks)
    exact = tuple(hook for hook in listed if hook.url == url)
    return exact or tuple(hook for hook in listed if urlsplit(hook.url).path.endswith(path))


def trouble_with(hooks: Sequence[Hook], url: str) -> AccountTrouble | None:
    """Why prepares cannot be heard of, if they cannot."""
    subscribed = [hook for hook in hooks if PENDING_APPROVAL in hook.events]
    if not hooks:
        return AccountTrouble(AccountAlert.WEBHOOK_NOT_REGISTERED, f"no webhook at Phala Cloud leads to {url}")
    if not subscribed:
        return AccountTrouble(AccountAlert.WEBHOOK_NOT_SUBSCRIBED, f"{hooks[0].id} does not get {PENDING_APPROVAL}")
    if not any(hook.enabled for hook in subscribed):
        return AccountTrouble(AccountAlert.WEBHOOK_DISABLED, f"{subscribed[0].id} is disabled")
    return None


def listed_since(settled_to: datetime | None, now: datetime) -> datetime:
    """From which moment on the deliveries matter; what a token can no longer be used for does not."""
    oldest = now - TOKEN_LIFETIME
    return oldest if settled_to is None else max(settled_to, oldest)


def missed(
    deliveries: Iterable[HookDelivery], heard: Collection[str], asked: Mapping[str, Asked], now: datetime
) -> Missed:
    """What of the deliveries did not arrive.

    Args:
        deliveries: of the webhooks that lead here, in any order.
        heard: those of their event ids that are known here.
        asked: what was asked for already, by the id it was sent with first.
        now: the time.
    """
    events = _by_first_id(deliveries)
    open_since = {
        first: min(one.created_at for one in sent)
        for first, sent in events.items()
        if not any(one.delivered or one.event_id in heard for one in sent)
    }
    lost = {first for first in open_since if first in asked and _in_vain(asked[first], now)}
    ready = [
        first
        for first in open_since
        if first not in lost and _given_up(events[first], now) and _may_ask(asked.get(first), now)
    ]
    ready.sort(key=lambda first: open_since[first], reverse=True)
    left = [since for first, since in open_since.items() if first not in lost]
    return Missed(tuple(ready[:ASKS_PER_LOOK]), tuple(sorted(lost)), min([now - GIVES_UP_AFTER, *left]))


def _by_first_id(deliveries: Iterable[HookDelivery]) -> dict[str, list[HookDelivery]]:
    events: dict[str, list[HookDelivery]] = defaultdict(list)
    for delivery in deliveries:
        if delivery.event_type == PENDING_APPROVAL:
            events[delivery.original_id].append(delivery)
    return events


def _given_up(sent: Iterable[HookDelivery], now: datetime) -> bool:
    return all(one.failed or now - one.created_at >= GIVES_UP_AFTER for one in sent)


def _may_ask(asked: Asked | None, now: datetime) -> bool:
    return asked is None or (asked.times < ASKS_PER_EVENT and now - asked.at >= ASKED_AGAIN_AFTER)


def _in_vain(asked: Asked, now: datetime) -> bool:
    return asked.times >= ASKS_PER_EVENT and now - asked.at >= ASKED_AGAIN_AFTER


def lost_events(event_ids: Sequence[str]) -> AccountTrouble:
    """What people are told of events that never arrived."""
    named = ", ".join(event_ids[:5]) + (", ..." if len(event_ids) > 5 else "")  # noqa: PLR2004 - enough to go by
    return AccountTrouble(AccountAlert.EVENTS_LOST, f"{len(event_ids)} never arrived: {named}", subject=named)


def unknown_update(app_contract: str, vm_uuid: str, compose_hash: str) -> AccountTrouble:
    """What people are told of an update that waits at Phala Cloud and that nobody here knows of."""
    return AccountTrouble(
        AccountAlert.UNKNOWN_UPDATE,
        f"an update of CVM {vm_uuid} to {compose_hash} is prepared at Phala Cloud",
        subject=f"{vm_uuid} {compose_hash}",
        app_contract=app_contract,
        # Its webhook may still be on the way, by itself or asked for.
        patience=2 * GIVES_UP_AFTER,
    )
