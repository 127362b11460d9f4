"""Signatures of all kinds, counted."""

from eth_account import Account
from eth_account.messages import encode_defunct
from hypothesis import given
from hypothesis import strategies as st

from service.domain.signatures import SignatureKind, kind_of, tally
from tests.support.builders import COMPOSE_HASH, OTHER_HASH
from tests.support.fakes import FakeSigner

OWNERS = [FakeSigner(seed) for seed in range(11, 16)]
ADDRESSES = [owner.address for owner in OWNERS]
A, B, C, D, E = ADDRESSES


def eth_sign(seed: int) -> str:
    signed = Account.from_key(seed.to_bytes(32, "big")).sign_message(
        encode_defunct(primitive=bytes.fromhex(COMPOSE_HASH[2:]))
    )
    raw = bytearray(signed.signature)
    raw[64] += 4
    return "0x" + raw.hex()


def approved_hash(owner: str) -> str:
    return "0x" + owner[2:].lower().zfill(64) + "00" * 32 + "01"


def contract_signature(owner: str) -> str:
    return "0x" + owner[2:].lower().zfill(64) + f"{65:064x}" + "00" + f"{3:064x}" + "abcdef"


def test_each_kind_is_counted_for_what_it_is() -> None:
    listed = [
        (A, OWNERS[0].sign(COMPOSE_HASH)),
        (B, eth_sign(12)),
        (C, approved_hash(C)),
        (D, contract_signature(D)),
        (E, OWNERS[4].sign(OTHER_HASH)),
    ]

    counted = tally(COMPOSE_HASH, listed, ADDRESSES, {C})

    assert counted.signed == {
        A: SignatureKind.EIP712,
        B: SignatureKind.ETH_SIGN,
        C: SignatureKind.APPROVED_HASH,
    }
    assert (counted.contracts, counted.wrong) == ((D,), (E,))


def test_an_approved_hash_that_the_chain_does_not_know_neither_counts_nor_alerts() -> None:
    counted = tally(COMPOSE_HASH, [(A, approved_hash(A))], ADDRESSES, ())
    assert (counted.signed, counted.wrong) == ({}, ())


def test_one_approved_on_chain_counts_whatever_the_queue_lists() -> None:
    counted = tally(COMPOSE_HASH, [(A, contract_signature(A))], ADDRESSES, {A})
    assert (counted.signed, counted.contracts) == ({A: SignatureKind.APPROVED_HASH}, ())


def test_who_is_no_owner_any_more_does_not_count() -> None:
    listed = [(A, OWNERS[0].sign(COMPOSE_HASH)), (B, OWNERS[1].sign(COMPOSE_HASH))]
    assert list(tally(COMPOSE_HASH, listed, [B], {A}).signed) == [B]


def test_a_signature_of_another_owner_counts_for_neither() -> None:
    counted = tally(COMPOSE_HASH, [(A, OWNERS[1].sign(COMPOSE_HASH))], ADDRESSES, ())
    assert (counted.signed, counted.wrong) == ({}, (A,))


def test_one_listed_without_a_signature_is_no_alert() -> None:
    assert tally(COMPOSE_HASH, [(A, "0x")], ADDRESSES, ()).wrong == ()


@given(st.binary(max_size=200))
def test_whatever_is_listed_no_owner_is_made_up(raw: bytes) -> None:
    counted = tally(COMPOSE_HASH, [(A, "0x" + raw.hex())], ADDRESSES, ())
    assert counted.signed == {}
    assert (A in counted.contracts) == (kind_of("0x" + raw.hex()) is SignatureKind.CONTRACT)
