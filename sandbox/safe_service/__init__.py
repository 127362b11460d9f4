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
"""
