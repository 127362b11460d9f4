"""Look at an account at Phala Cloud for what did not arrive here: missed events, and updates nobody knows of.

A missed event is asked for again, never taken out of the list: only what is signed counts. What comes twice is
recognised when it arrives. An update that only the list of pending updates shows has no token: people are told.
"""

import logging
from collections.abc import Sequence
from datetime import datetime

from service.domain.errors import CountersignError, NotFound, Refused, Unauthorized
from service.domain.phala_facts import Hook
from service.domain.recovery import (
    Account,
    AccountAlert,
    AccountTrouble,
    Recovery,
    listed_since,
    lost_events,
    missed,
    ours,
    trouble_with,
    unknown_update,
)
from service.ports import Clock, Phala, RecoveryIntents

log = logging.getLogger(__name__)

_OF_WEBHOOKS = frozenset(AccountAlert) - {AccountAlert.UNKNOWN_UPDATE}


def recover(account: Account, *, phala: Phala, intents: RecoveryIntents, clock: Clock) -> Recovery:
    """Ask for what was missed, and find what nobody here knows of.

    Raises:
        CountersignError: the webhooks cannot be looked at now.
    """
    try:
        hooks = ours(phala.webhooks(), account.hook_url, account.hook_path)
    except (Unauthorized, NotFound, Refused) as error:
        return Recovery(None, (AccountTrouble(AccountAlert.WEBHOOKS_NOT_LISTED, error.detail),), _OF_WEBHOOKS)
    trouble = trouble_with(hooks, account.hook_url)
    troubles = [] if trouble is None else [trouble]
    settled_to, lost = _events(account, hooks, phala=phala, intents=intents, clock=clock)
    if lost:
        troubles.append(lost_events(lost))
    unknown, asked_apps, fault = _updates(account, phala=phala, intents=intents)
    return Recovery(settled_to, (*troubles, *unknown), frozenset(AccountAlert), asked_apps, fault)


def _events(
    account: Account, hooks: Sequence[Hook], *, phala: Phala, intents: RecoveryIntents, clock: Clock
) -> tuple[datetime | None, Sequence[str]]:
    """Ask for the missed events of each webhook; to when all is settled, and what is lost."""
    now = clock.now()
    settled: list[datetime] = []
    lost: list[str] = []
    for hook in hooks:
        if not hook.enabled:
            continue
        deliveries = phala.hook_deliveries(hook.id, listed_since(account.settled_to, now))
        found = missed(deliveries, intents.heard([one.event_id for one in deliveries]), intents.asked(), now)
        for event_id in found.ask:
            intents.asking(event_id, now)
            _ask(phala, hook, event_id)
        settled.append(found.settled_to)
        lost.extend(found.lost)
    return min(settled, default=None), lost


def _ask(phala: Phala, hook: Hook, event_id: str) -> None:
    try:
        phala.resend(hook.id, event_id)
    except (NotFound, Refused) as error:  # counted all the same: it must not keep others from being asked for
        log.warning("a missed event is not sent again: %s", error.detail, extra={"event": event_id})
    else:
        log.info("a missed event is sent again", extra={"event": event_id})


def _updates(
    account: Account, *, phala: Phala, intents: RecoveryIntents
) -> tuple[Sequence[AccountTrouble], tuple[str, ...], CountersignError | None]:
    """Updates of some apps that nobody here knows of, and the apps; a fault ends it early."""
    unknown: list[AccountTrouble] = []
    asked: list[str] = []
    try:
        for app_contract in account.apps:
            pending = phala.pending_updates(app_contract)
            asked.append(app_contract)
            unknown += [
                unknown_update(app_contract, update.vm_uuid, update.compose_hash) for update in intents.unknown(pending)
            ]
    except CountersignError as error:
        return unknown, tuple(asked), error
    return unknown, tuple(asked), None
