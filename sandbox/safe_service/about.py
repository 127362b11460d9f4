"""What the service says about itself."""

from datetime import UTC, datetime
from typing import Any

from sandbox.safe_service.chain_view import L2_SINGLETONS
from sandbox.safe_service.service import Service


def about(service: Service, host: str) -> dict[str, Any]:
    """Version and settings; those of the recorded service where nothing here differs."""
    return {
        "name": "Safe Transaction Service",
        "version": "6.10.1",
        "api_version": "v1",
        "secure": False,
        "host": host,
        "headers": [],
        "settings": {
            "AWS_CONFIGURED": False,
            "AWS_S3_PUBLIC_URL": None,
            "ETHEREUM_NODE_URL": service.chain.rpc.url,
            "ETHEREUM_TRACING_NODE_URL": None,
            "ETH_EVENTS_BLOCK_PROCESS_LIMIT": 50,
            "ETH_EVENTS_BLOCK_PROCESS_LIMIT_MAX": 0,
            "ETH_EVENTS_QUERY_CHUNK_SIZE": 1000,
            "ETH_EVENTS_UPDATED_BLOCK_BEHIND": 5760,
            "ETH_INTERNAL_NO_FILTER": False,
            "ETH_INTERNAL_TRACE_TXS_BATCH_SIZE": 0,
            "ETH_INTERNAL_TXS_BLOCK_PROCESS_LIMIT": 10000,
            "ETH_L2_NETWORK": True,
            "ETH_REORG_BLOCKS": 200,
            "SSO_ENABLED": False,
            "TOKENS_LOGO_BASE_URI": "https://tokens-logo.localhost/",
            "TOKENS_LOGO_EXTENSION": ".png",
        },
    }


def singletons(service: Service) -> list[dict[str, Any]]:
    """The singletons whose Safes are indexed and that are on this chain."""
    indexed = _indexed(service)
    return [
        {
            "address": address,
            "version": f"{version}+L2",
            "deployer": "Safe",
            "deployedBlockNumber": 0,
            "lastIndexedBlockNumber": indexed,
            "l2": True,
        }
        for address, version in L2_SINGLETONS.items()
        if service.chain.rpc("eth_getCode", [address, "latest"]) != "0x"
    ]


def indexing(service: Service) -> dict[str, Any]:
    """How far the indexing is; tokens are not indexed and never behind."""
    head = service.chain.rpc("eth_getBlockByNumber", ["latest", False])
    number, time = int(head["number"], 16), _block_time(head)
    indexed = _indexed(service)
    block = service.chain.rpc("eth_getBlockByNumber", [hex(indexed), False])
    synced = number - indexed <= 1
    return {
        "currentBlockNumber": number,
        "currentBlockTimestamp": time,
        "erc20BlockNumber": number,
        "erc20BlockTimestamp": time,
        "erc20Synced": True,
        "masterCopiesBlockNumber": indexed,
        "masterCopiesBlockTimestamp": _block_time(block),
        "masterCopiesSynced": synced,
        "synced": synced,
    }


def _indexed(service: Service) -> int:
    row = service.database.one("SELECT MAX(number) AS number FROM blocks")
    return int(row["number"]) if row and row["number"] is not None else 0


def _block_time(block: dict[str, Any]) -> str:
    moment = datetime.fromtimestamp(int(block["timestamp"], 16), UTC)
    return moment.isoformat().replace("+00:00", "Z")
