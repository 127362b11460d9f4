"""Nonces of a Safe: which ones our proposals hold, and taking the next free one."""

import itertools
from collections.abc import Collection

from sqlalchemy import ColumnElement, Select, and_, select, update
from sqlalchemy.orm import Session, aliased

from service.domain.snapshots import LIVE_PROPOSAL, LIVE_SAFE_TRANSACTION, SafeTransactionKind, SafeTransactionState
from service.store.locks import lock_name
from service.store.tables import Proposal, SafeTransaction


def held_by_others(row: Proposal | type[Proposal]) -> Select[int]:
    """Nonces of a proposal's Safe that other live proposals hold, of whatever workspace; of the class, correlated."""
    other = aliased(Proposal)
    return (
        select(SafeTransaction.nonce)
        .join(other, SafeTransaction.proposal_id == other.id)
        .where(_live_approvals(row), other.state.in_([state.value for state in LIVE_PROPOSAL]), other.id != row.id)
    )


def take_free(session: Session, row: Proposal, chain_nonce: int, occupied: Collection[int]) -> int:
    """The lowest nonce from ``chain_nonce`` at which nothing is queued and that no live proposal of ours holds.

    Nobody else takes one for the same Safe until the transaction ends. A transaction of a proposal that ended counts
    only as far as the Safe's queue shows it, which ``occupied`` says: one that never got there, or was taken out, would
    leave a hole that blocks everything above it.
    """
    lock_name(session, f"nonce:{row.chain_id}:{row.safe}")
    taken = {*occupied, *session.scalars(held_by_others(row))}
    nonce = next(nonce for nonce in itertools.count(chain_nonce) if nonce not in taken)
    stale = update(SafeTransaction).where(
        _live_approvals(row), SafeTransaction.nonce == nonce, SafeTransaction.proposal_id != row.id
    )
    session.execute(stale.values(state=SafeTransactionState.REPLACED.value))
    return nonce


def _live_approvals(row: Proposal | type[Proposal]) -> ColumnElement[bool]:
    return and_(
        SafeTransaction.chain_id == row.chain_id,
        SafeTransaction.safe == row.safe,
        SafeTransaction.kind == SafeTransactionKind.APPROVAL.value,
        SafeTransaction.state.in_([state.value for state in LIVE_SAFE_TRANSACTION]),
    )
