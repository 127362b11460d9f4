"""A Safe Transaction Service over HTTP, held to recorded answers of the real one (v6.10.1, L2 indexing).

Start at `app.create_app` (the ASGI application) or `server.running` (served on a free port). It reads the chain it is
given: Safes, executions and on-chain approvals are indexed from logs, and un-indexed when their block vanishes. What
it was told (proposals, confirmations, delegates) is kept in one SQLite file and survives a restart.

    with running(tmp_path / "safe.sqlite", rpc_url=anvil.rpc_url) as address:
        httpx.get(f"{address}/api/v1/safes/{safe}/")

`control.Control` is the Python helper that makes it lag and misbehave, and says what it was asked.

api-kit takes `address + "/api"` as its txServiceUrl, safe-eth-py takes `address`. Below `/_sandbox/` are the controls:

    POST   /_sandbox/faults    misbehave at coming requests (see `phala_cloud.faults.Fault`; paths are full ones)
    DELETE /_sandbox/faults    behave again
    PUT    /_sandbox/indexing  {"paused": true} or {"blocks_behind": 3}: lag behind the chain
    GET    /_sandbox/ledger    {"requests": {"GET /api/v1/safes/{address}/": 3, ..}, "proposals": [..]}
    DELETE /_sandbox/ledger    count from zero

Every recorded exchange (`tests/vectors/safe/exchanges.jsonl`) gets the recorded status and body. Not implemented:

- `ETag` and 304: a client that wants them must send `If-None-Match`, and none here does.
- 403 for `Authorization: Token ...`: it guards other services' routes; clients send no such header.
- module transactions, plain Ethereum transactions and token transfers in `all-transactions`: nothing here makes any
  that a proposal would depend on.
- tokens, collectibles, balances, messages, user operations, contract names: a proposal needs none of them.
- the data decoder beyond the recorded 404, and `dataDecoded` of other calls than a Safe's and ERC-20's: the
  real one decodes by a database of published ABIs.
- rate limits and outages: not part of the service itself; told by `/_sandbox/faults`.
"""
