"""``python -m sandbox.approve``: two owners of the local world's Safe sign what is in its queue, and execute it."""

import argparse
import sys
from collections.abc import Sequence

import httpx

from sandbox.chain.accounts import OWNERS
from sandbox.chain.local import ChainError, LocalChain
from sandbox.jsonrpc import JsonRpc
from sandbox.wallet import Wallet


def main(arguments: Sequence[str] | None = None) -> int:
    """Sign and execute one transaction; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m sandbox.approve", description=__doc__)
    parser.add_argument("rpc_url", help="the EVM")
    parser.add_argument("service_url", help="the Safe Transaction Service")
    parser.add_argument("safe", help="address of the Safe")
    parser.add_argument("safe_tx_hash", help="`approval.safe_tx_hash` of the change request")
    asked = parser.parse_args(arguments)
    wallet = Wallet(asked.service_url, LocalChain(JsonRpc(asked.rpc_url)))
    try:
        approval = wallet.get(asked.safe, asked.safe_tx_hash)
        for owner in OWNERS[:2]:
            wallet.confirm(approval, owner)
            sys.stdout.write(f"{owner.address} signed\n")
        transaction_hash = wallet.execute(wallet.get(asked.safe, asked.safe_tx_hash))
    except (httpx.HTTPError, ChainError, ValueError) as error:
        sys.stderr.write(f"sandbox.approve: {error}\n")
        return 1
    finally:
        wallet.close()
    sys.stdout.write(f"executed by {transaction_hash}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
