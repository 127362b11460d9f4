import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.chain import TOPICS, FactKind
from service.domain.hexes import address, bytes32


@given(raw=st.binary(min_size=32, max_size=32), prefixed=st.booleans(), upper=st.booleans())
def test_hashes_have_one_form(raw: bytes, *, prefixed: bool, upper: bool) -> None:
    text = raw.hex().upper() if upper else raw.hex()
    assert bytes32(("0x" if prefixed else "") + text) == "0x" + raw.hex()


@pytest.mark.parametrize("text", ["", "0x", "ab" * 31, "0x" + "a" * 63, "ab" * 33, "0X" + "ab" * 32])
def test_a_hash_of_another_length_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="64 hex digits"):
        bytes32(text)


@pytest.mark.parametrize("text", ["g" * 64, " " + "ab" * 32, "ab" * 32 + "\n", "٣" * 64])
def test_other_characters_are_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(ValueError, match="other characters") as caught:
        bytes32(text)
    assert text.strip() not in str(caught.value)


def test_addresses_are_checksummed() -> None:
    checksummed = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"  # EIP-55's own example
    assert address(checksummed.lower()) == address(checksummed[2:]) == checksummed


@pytest.mark.parametrize("text", ["", "0x" + "ab" * 19, "0x" + "ab" * 32])
def test_an_address_of_another_length_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="40 hex digits"):
        address(text)


def test_topics_are_those_of_the_contract() -> None:
    # Computed from DstackApp's event signatures with another tool.
    assert TOPICS == {
        "0xfecb34306dd9d8b785b54d65489d06afc8822a0893ddacedff40c50a4942d0af": FactKind.HASH_ADDED,
        "0x755b79bd4b0eeab344d032284a99003b2ddc018b646752ac72d681593a6e8947": FactKind.HASH_REMOVED,
        "0x67fc71ab96fe3fa3c6f78e9a00e635d591b7333ce611c0380bc577aac702243b": FactKind.DEVICE_ADDED,
        "0xe0862975ac517b0478d308012afabc4bc37c23874a18144d7f2dfb852ff95c2c": FactKind.DEVICE_REMOVED,
        "0xbb2cdb6c7b362202d40373f87bc4788301cca658f91711ac1662e1ad2cba4a20": FactKind.ANY_DEVICE_SET,
    }
