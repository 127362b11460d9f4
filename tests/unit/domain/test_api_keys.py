"""API keys as texts, and their scopes."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.api_keys import HINT_LENGTH, MEANINGS, Scope, digest, hint, is_well_formed, mint

RANDOM = st.binary(min_size=32, max_size=32)


@given(RANDOM)
def test_what_is_minted_is_well_formed_and_of_one_length(randomness: bytes):
    key = mint(randomness)
    assert is_well_formed(key)
    assert len(key) == 53
    assert key.startswith("csk_")


@given(RANDOM, RANDOM)
def test_no_randomness_is_lost(one: bytes, other: bytes):
    assert (mint(one) == mint(other)) is (one == other)


@given(RANDOM, st.integers(4, 52), st.sampled_from("09AZaz"))
def test_a_typing_error_is_known_by_the_checksum(randomness: bytes, place: int, digit: str):
    key = mint(randomness)
    wrong = key[:place] + digit + key[place + 1 :]
    assert is_well_formed(wrong) is (wrong == key)


@pytest.mark.parametrize("text", ["", "csk_", mint(b"k" * 32)[:-1], mint(b"k" * 32) + "\n", mint(b"k" * 32).upper()])
def test_other_texts_are_no_keys(text: str):
    assert not is_well_formed(text)


def test_what_is_kept_and_shown_of_a_key():
    key = mint(b"k" * 32)
    assert digest(key) == hashlib.sha256(key.encode()).digest()
    assert key.startswith(hint(key))
    assert len(hint(key)) == HINT_LENGTH == 8


def test_each_scope_includes_those_before_it():
    order = [Scope.READ, Scope.SUBMIT, Scope.MANAGE, Scope.ADMIN]
    for place, scope in enumerate(order):
        assert [other for other in order if scope.includes(other)] == order[: place + 1]
    assert list(MEANINGS) == order
