"""The chain adapter against endpoints that lie, stall, err or answer garbage: a fault, never a wrong yes or no."""

import json
from collections.abc import Callable
from contextlib import suppress

import pytest
from eth_abi.abi import encode
from eth_utils.crypto import keccak
from hypothesis import given, settings
from hypothesis import strategies as st

from service.adapters.chain import JsonRpcChain
from service.domain.chain import Block
from service.domain.errors import CountersignError, Nonsense, StateUnavailable, Unreachable
from service.domain.finality import FINALIZED, SAFE, Confirmations, Finality
from service.domain.reasons import Reason
from tests.support.hostile_http import Behaviour, Drip, HangUp, Request, Say, Stall, rpc, serving
from tests.support.hostile_rpc import always, chain_of, says

APP, SAFE_ADDRESS = "0x" + "aA" * 20, "0x" + "bb" * 20
HASH, DEVICE = "0x" + "9f" * 32, "0x" + "7b" * 32
AT = Block(100, "0x" + "11" * 32)
Read = Callable[[JsonRpcChain], object]
PINNED: dict[str, Read] = {
    "allowed": lambda chain: chain.allowed(APP, HASH, DEVICE, AT),
    "ownership": lambda chain: chain.ownership(APP, AT),
    "code_hash": lambda chain: chain.code_hash(APP, AT),
    "safe": lambda chain: chain.safe(SAFE_ADDRESS, AT),
    "simulate": lambda chain: chain.simulate(SAFE_ADDRESS, APP, "0x", AT),
}
READS: dict[str, Read] = {
    "view": lambda chain: chain.view(),
    "block": lambda chain: chain.block(100),
    "facts": lambda chain: chain.facts(90, 100),
    **PINNED,
}
every_read = pytest.mark.parametrize("read", READS.values(), ids=READS)
every_pinned_read = pytest.mark.parametrize("read", PINNED.values(), ids=PINNED)


@every_read
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>Sign in</html>",
        b"null",
        b"[]",
        b"{}",
        b'"0x1"',
        b'{"jsonrpc":"2.0","id":0}',
        b'[{"jsonrpc":"2.0","id":7,"result":"0x1"}]',
        b'{"jsonrpc":"2.0","id":0,"error":"no"}',
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"result":' + b"1" * 5000 + b"}",
    ],
    ids=lambda body: repr(body[:20]),
)
def test_garbage_is_nonsense(read: Read, body: bytes):
    with chain_of(lambda _: Say(200, body)) as chain, pytest.raises(Nonsense) as fault:
        read(chain)
    assert fault.value.reason is Reason.RPC_UNREACHABLE


@every_read
@pytest.mark.parametrize("status", [301, 400, 401, 403, 404, 429, 500, 503])
def test_other_statuses_are_unreachable_and_retry_after_is_passed_on(read: Read, status: int):
    behaviour = Say(status, b"nope", {"Retry-After": "12"})
    with chain_of(lambda _: behaviour) as chain, pytest.raises(Unreachable) as fault:
        read(chain)
    assert fault.value.retry_after == (12 if status in {429, 500, 503} else None)
    assert "s3cret" not in fault.value.detail


@every_read
@pytest.mark.parametrize(
    "behaviour",
    [
        HangUp(),
        HangUp(b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n[{"),
        HangUp(b"SMTP\r\n"),
        Stall(),
        Stall(b"HTTP/1.1 200"),
        Drip(),
    ],
    ids=["hang up", "hang up midway", "no http", "stall", "stall in head", "drip"],
)
def test_a_server_that_breaks_off_or_never_ends_is_unreachable(read: Read, behaviour: Behaviour):
    with serving(lambda _: behaviour) as server:
        chain = JsonRpcChain(31337, [f"{server.url}/key-s3cret"], FINALIZED, timeout=0.3)
        with pytest.raises(Unreachable) as fault:
            read(chain)
        chain.close()
    assert fault.value.reason is Reason.RPC_UNREACHABLE
    assert "s3cret" not in str(fault.value)


@every_pinned_read
@pytest.mark.parametrize(
    ("code", "message"),
    [
        (-32001, "Resource not found"),
        (-32000, "header not found"),
        (-32000, "header for hash not found"),
        (-32000, "hash 0x11 is not currently canonical"),
        (-32000, "missing trie node 1f2e (path ) state 0x33 is not available"),
        (-32000, "unknown block"),
        (-32000, "block not found"),
        (-32000, "required historical state unavailable (reexec=128)"),
        (-32603, "state at block #99 is pruned"),
        (-32602, "BlockOutOfRangeError: block height is 2 but requested was 100"),
        (-32000, "distance to target block exceeds maximum proof window"),
    ],
)
def test_a_node_without_the_state_is_told_from_a_no(read: Read, code: int, message: str):
    with chain_of(says(code, message)) as chain, pytest.raises(StateUnavailable) as fault:
        read(chain)
    assert fault.value.reason is Reason.RPC_STATE_UNAVAILABLE


@every_pinned_read
@pytest.mark.parametrize(
    ("code", "message"),
    [(-32601, "Method not found"), (-32005, "daily request count exceeded"), (-32603, "Internal error"), (-32000, "")],
)
def test_other_errors_say_nothing_about_the_question(read: Read, code: int, message: str):
    with chain_of(says(code, message)) as chain, pytest.raises(Unreachable) as fault:
        read(chain)
    assert fault.value.reason is Reason.RPC_UNREACHABLE


def test_a_contract_cannot_pass_its_revert_off_as_missing_state():
    encoded = "0x08c379a0" + f"{32:064x}{16:064x}" + b"header not found".hex().ljust(64, "0")
    with chain_of(says(3, "execution reverted: header not found", encoded)) as chain:
        assert chain.simulate(SAFE_ADDRESS, APP, "0x", AT) == "reverted: header not found"
        assert chain.safe(SAFE_ADDRESS, AT) is None


def test_the_next_endpoint_answers_for_one_that_lags_or_errs():
    good = always("0x" + f"{1:064x}")
    for bad in (
        says(-32000, "header not found"),
        says(-32603, "boom"),
        lambda _: Say(200, b"<html>"),
        rpc(lambda *_: 1, chain_id=1),
    ):
        with chain_of(bad, good) as chain:
            assert chain.allowed(APP, HASH, DEVICE, AT).both
        with chain_of(good, bad) as chain:
            assert chain.allowed(APP, HASH, DEVICE, AT).both


def test_an_endpoint_that_failed_is_not_asked_first_again():
    asked: list[int] = []

    def noting(index: int, behave: Callable[[Request], Behaviour]) -> Callable[[Request], Behaviour]:
        def note(request: Request) -> Behaviour:
            asked.append(index)
            return behave(request)

        return note

    with chain_of(noting(0, lambda _: Say(500)), noting(1, always(None))) as chain:
        chain.block(1)
        chain.block(1)
    assert asked == [0, 1, 1]


@pytest.mark.parametrize(
    "flag", ["0x" + f"{2:064x}", "0x" + "f" * 64, "0x01", "true", True, None, "0x" + "0" * 65, "0xzz"]
)
def test_a_flag_that_is_no_bool_is_nonsense(flag: object):
    with chain_of(always(flag)) as chain, pytest.raises(Nonsense):
        chain.allowed(APP, HASH, DEVICE, AT)


def safe_but_for(slot: object) -> Callable[[Request], Behaviour]:
    """A Safe 1.4.1 of one owner whose storage slots read ``slot``."""
    answers = {
        keccak(text=signature)[:4].hex(): "0x" + encode(kinds, values).hex()
        for signature, kinds, values in (
            ("VERSION()", ["string"], ["1.4.1"]),
            ("getOwners()", ["address[]"], [[APP]]),
            ("getThreshold()", ["uint256"], [1]),
            ("nonce()", ["uint256"], [0]),
            ("getModulesPaginated(address,uint256)", ["address[]", "address"], [[], SAFE_ADDRESS]),
        )
    }
    return rpc(lambda method, params: answers[params[0]["data"][2:10]] if method == "eth_call" else slot)


@pytest.mark.parametrize("slot", ["0x", "0x00", "0x0", "0x" + "00" * 31, "0x" + "00" * 33, None, 0, [], "zz"])
def test_a_storage_slot_that_is_none_is_nonsense_and_hides_no_guard(slot: object):
    with chain_of(safe_but_for(slot)) as chain, pytest.raises(Nonsense):
        chain.safe(SAFE_ADDRESS, AT)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_one_of_three_that_lies_about_a_safe_is_outvoted(place: int):
    others, lie = [safe_but_for("0x" + "00" * 32)] * 2, safe_but_for("0x" + "61" * 32)
    with chain_of(*others[:place], lie, *others[place:], agreement=2) as chain:
        safe = chain.safe(SAFE_ADDRESS, AT)
    assert safe is not None
    assert safe.guard is None


def test_a_slot_is_read_as_the_contract_reads_it():
    with chain_of(safe_but_for("0x" + "ff" * 12 + "61" * 20)) as chain:
        safe = chain.safe(SAFE_ADDRESS, AT)
    assert safe is not None
    assert (safe.guard, safe.l2, safe.more_modules) == ("0x" + "61" * 20, None, True)


@pytest.mark.parametrize("read", [READS["code_hash"], READS["ownership"]], ids=["code_hash", "ownership"])
def test_code_that_reverts_is_no_missing_code(read: Read):
    with chain_of(says(3, "execution reverted")) as chain, pytest.raises(Unreachable):
        read(chain)


def blocks(by_name: dict[str, object]) -> Callable[[Request], Behaviour]:
    return rpc(lambda _method, params: by_name[params[0]])


def header(number: int, digit: str = "1") -> dict[str, str]:
    return {"number": hex(number), "hash": "0x" + digit * 64}


@pytest.mark.parametrize(
    "tagged",
    [
        None,
        {},
        {"number": "0x1"},
        {"number": 1, "hash": "0x" + "1" * 64},
        header(11),
        {"number": "0x", "hash": "0x" + "1" * 64},
    ],
    ids=str,
)
@pytest.mark.parametrize("finality", [SAFE, FINALIZED])
def test_a_view_needs_a_final_block_at_or_below_its_head(finality: Finality, tagged: object):
    answers = blocks({"latest": header(10), str(finality): tagged})
    with chain_of(answers, finality=finality) as chain, pytest.raises(Unreachable):
        chain.view()


def test_a_view_by_depth_takes_no_other_block_than_the_one_it_needs():
    answers: dict[str, object] = {"latest": header(10), "0x7": header(6)}
    with chain_of(blocks(answers), finality=Confirmations(3)) as chain:
        with pytest.raises(Nonsense, match="another block"):
            chain.view()
        answers["0x7"] = None
        with pytest.raises(Nonsense, match="no block below"):
            chain.view()
        answers["0x7"] = header(7, "7")
        assert chain.view().final == Block(7, "0x" + "7" * 64)


def test_a_view_that_goes_back_is_told_as_it_is():
    answers: dict[str, object] = {"latest": header(10), "0x7": header(7, "7"), "0x5": header(5, "5"), "0x8": None}
    with chain_of(blocks(answers), finality=Confirmations(3)) as chain:
        chain.view()
        answers["latest"] = header(8, "8")
        assert chain.view().final == Block(5, "0x" + "5" * 64)


def test_an_endpoint_behind_a_wrong_chain_is_never_believed():
    with chain_of(rpc(lambda *_: "0x" + f"{1:064x}", chain_id=1)) as chain:
        for read in READS.values():
            with pytest.raises(Unreachable, match="serves chain 1, not 31337"):
                read(chain)
        assert chain.check_chain_id() == 1


@pytest.mark.parametrize("chain_id", ["1", 1, None, "0x", "0x" + "1" * 40, "0xzz", [], "-0x1"])
def test_a_chain_id_that_is_none_is_nonsense(chain_id: object):
    def answer(request: Request) -> Behaviour:
        return Say.json({"jsonrpc": "2.0", "id": request.json()["id"], "result": chain_id})

    with chain_of(answer) as chain, pytest.raises(Nonsense):
        chain.check_chain_id()


def test_batches_may_come_back_in_any_order():
    def shuffle(request: Request) -> Behaviour:
        said = rpc(lambda _method, params: "0x" + f"{int(params[0]['data'][:10] == '0x3440a16a'):064x}")(request)
        assert isinstance(said, Say)
        answers = json.loads(said.body)
        return Say.json(answers[::-1] if isinstance(answers, list) else answers)

    with chain_of(shuffle) as chain:
        allowed = chain.allowed(APP, HASH, DEVICE, AT)
    assert (allowed.compose_hash, allowed.device) == (False, True)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.from_regex(r"0x[0-9a-f]{0,80}\Z"),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None)
@given(result=json_values, name=st.sampled_from(sorted(READS)))
def test_whatever_the_result_only_our_faults_come_out(result: object, name: str):
    with chain_of(always(result)) as chain, suppress(CountersignError):
        READS[name](chain)


@settings(max_examples=200, deadline=None)
@given(
    error=json_values | st.fixed_dictionaries({"code": st.integers(), "message": st.text(), "data": json_values}),
    name=st.sampled_from(sorted(READS)),
)
def test_whatever_the_error_only_our_faults_come_out(error: object, name: str):
    def answer(request: Request) -> Behaviour:
        body = request.json()
        calls = body if isinstance(body, list) else [body]
        answers = [{"jsonrpc": "2.0", "id": call["id"], "error": error, "result": "0x7a69"} for call in calls]
        return Say.json(answers if isinstance(body, list) else answers[0])

    with chain_of(answer) as chain, suppress(CountersignError):
        READS[name](chain)
