import os
import signal
from pathlib import Path

import pytest

from sandbox.anvil import Anvil, AnvilError, find_anvil
from sandbox.jsonrpc import RpcError

pytestmark = pytest.mark.chain


def test_it_answers_on_a_free_port_with_its_chain_id_and_a_close_finalized_block():
    with Anvil(chain_id=8453) as first, Anvil() as second:
        assert first.rpc("eth_chainId") == hex(8453)
        assert second.rpc("eth_chainId") == hex(31337)
        assert first.port != second.port
        first.rpc("anvil_mine", ["0xa"])
        assert first.rpc("eth_getBlockByNumber", ["finalized", False])["number"] == hex(8)


def test_the_chain_survives_a_restart_when_it_has_a_state_file(tmp_path: Path):
    state = tmp_path / "chain.json"
    with Anvil(state=state) as anvil:
        sender, receiver, *_ = anvil.rpc("eth_accounts")
        transfer = {"from": sender, "to": receiver, "value": "0x1"}
        sent = anvil.rpc("eth_sendTransaction", [transfer])
        anvil.rpc("eth_sendTransaction", [transfer])
        balances = [anvil.rpc("eth_getBalance", [receiver, block]) for block in ("0x0", "0x1", "0x2")]
    with Anvil(state=state) as anvil:
        assert anvil.rpc("eth_blockNumber") == "0x2"
        assert anvil.rpc("eth_getTransactionReceipt", [sent])["blockNumber"] == "0x1"
        assert [anvil.rpc("eth_getBalance", [receiver, f"0x{number}"]) for number in range(3)] == balances
        assert len(set(balances)) == 3


def test_an_error_of_the_node_names_the_method_and_the_code():
    with Anvil() as anvil, pytest.raises(RpcError, match="eth_nonsense") as caught:
        anvil.rpc("eth_nonsense")
    assert caught.value.code == -32601


def test_a_taken_port_is_an_error_that_says_so():
    with Anvil() as anvil, pytest.raises(AnvilError, match="Address already in use"):
        Anvil(port=anvil.port)


def test_a_dead_child_is_named_as_such_with_its_last_words():
    with Anvil() as anvil:
        os.kill(anvil.pid, signal.SIGKILL)
        with pytest.raises(AnvilError, match=r"ended with code -9(.|\n)*Listening on"):
            anvil.rpc("eth_chainId")


def test_stop_ends_the_process():
    anvil = Anvil()
    anvil.stop()
    anvil.stop()
    with pytest.raises(ProcessLookupError):
        os.kill(anvil.pid, 0)


def test_a_missing_binary_says_what_to_run(tmp_path: Path):
    with pytest.raises(AnvilError, match="make setup"):
        find_anvil((tmp_path,))


def test_the_npm_wrapper_is_taken_where_the_platform_package_is_hidden(tmp_path: Path):
    wrapper = tmp_path / "node_modules" / ".bin" / "anvil"
    wrapper.parent.mkdir(parents=True)
    wrapper.touch(mode=0o755)
    assert find_anvil((tmp_path,)) == wrapper
