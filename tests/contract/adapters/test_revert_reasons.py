import pytest
from eth_abi.abi import encode
from hypothesis import given
from hypothesis import strategies as st

from service.adapters.revert_reasons import revert_reason

SOMEBODY = "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC"


def data(selector: str, types: list[str], values: list[object]) -> str:
    return selector + encode(types, values).hex()


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (data("0x08c379a0", ["string"], ["invalid owner address"]), "reverted: invalid owner address"),
        (data("0x08c379a0", ["string"], ["two\nlines\x1b[31m"]), "reverted: two lines [31m"),
        (data("0x08c379a0", ["bytes"], [b"\xff\xfe"]), "reverted: ��"),
        (data("0x08c379a0", ["string"], ["x" * 5000]), "reverted: " + "x" * 289 + "…"),
        (data("0x4e487b71", ["uint256"], [0x11]), "panic 0x11: arithmetic overflow"),
        (data("0x4e487b71", ["uint256"], [0x99]), "panic 0x99: unknown"),
        (
            data("0x118cdaa7", ["address"], [SOMEBODY]),
            f"OwnableUnauthorizedAccount: the caller {SOMEBODY} is not the owner of the app contract",
        ),
        (data("0x1e4fbdf7", ["address"], [SOMEBODY]), f"OwnableInvalidOwner: {SOMEBODY} cannot be the owner"),
        ("0xf92ee8a9", "InvalidInitialization: the contract is already initialised"),
        ("0xd7e6bcf8", "NotInitializing: the contract is not being initialised"),
        ("0xd6bda275", "FailedCall: an inner call failed"),
        ("0x1425ea42", "FailedInnerCall: an inner call failed"),
        ("0x12345678", "reverted with the unknown error 0x12345678"),
        ("0x08c379a0", "reverted with data that no known error explains, 0x08c379a0"),
        ("0x118cdaa7" + "ff" * 32, "reverted with data that no known error explains, 0x118cdaa7"),
        ("0x12", "reverted with the unknown error 0x12"),
        ("0x", "reverted without a reason"),
    ],
)
def test_reverts_in_words(raw: str, words: str):
    assert revert_reason(raw, "execution reverted: the node's own words") == words


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ("execution reverted: Ownable: caller is not the owner", "Ownable: caller is not the owner"),
        ("execution reverted", "reverted without a reason"),
        ("VM Exception while processing transaction", "reverted without a reason"),
    ],
)
def test_without_data_the_nodes_words_are_taken(message: str, words: str):
    assert revert_reason(None, message) == words


@given(raw=st.binary(max_size=200), selector=st.sampled_from(["", "08c379a0", "4e487b71", "118cdaa7"]))
def test_whatever_a_contract_reverts_with_is_one_printable_line(raw: bytes, selector: str):
    words = revert_reason(f"0x{selector}{raw.hex()}", "")
    assert words
    assert words.isprintable()
    assert len(words) <= 300
