r"""A local chain with real Safe contracts and DstackApp contracts on it.

    from sandbox.anvil import Anvil
    from sandbox.chain.accounts import DELEGATE, OUTSIDER, OWNERS
    from sandbox.chain.apps import deploy_dstack_app, transfer_to_safe
    from sandbox.chain.local import LocalChain, encode_call
    from sandbox.chain.safes import SafeTx, deploy_safe, execute, next_nonce, owner_sign, safe_tx_hash
    from sandbox.jsonrpc import JsonRpc

    with Anvil() as anvil, JsonRpc(anvil.rpc_url) as rpc:
        chain = LocalChain(rpc)
        safe = deploy_safe(chain, "1.4.1")  # SafeL2, 2 of OWNERS; other owners, threshold, salt as arguments
        app = deploy_dstack_app(chain, "two-step", device=bytes(31) + b"\x01")
        transfer_to_safe(chain, app, safe)
        data = encode_call("addComposeHash(bytes32)", compose_hash)
        tx = SafeTx(to=app, data=data, nonce=next_nonce(chain, safe))
        tx_hash = safe_tx_hash(chain.chain_id, safe, tx)
        signatures = {owner.address: owner_sign(tx_hash, owner) for owner in OWNERS[:2]}
        receipt = execute(chain, safe, tx, signatures)

Each setup step waits for its transaction, so set up with automine and start slow blocks after it:
`anvil.rpc("evm_setIntervalMining", [1])`. Deployments are idempotent, except `deploy_dstack_app` and
`deploy_timelock`.
Addresses are checksummed, hashes are bytes, receipts are the node's raw JSON.
"""
