"""Where people look: addresses with their chain in front (EIP-3770), Safe{Wallet}, block explorers."""

from service.wiring import ChainLinks


def eip3770(chain: ChainLinks | None, address: str | None) -> str | None:
    """``base:0x..``; ``None`` without an address, or for a chain that is not configured any more."""
    return f"{chain.name}:{address}" if chain and address else None


def explorer_transaction(chain: ChainLinks | None, transaction_hash: str | None) -> str | None:
    """The transaction's page, where the chain has an explorer."""
    return _explorer(chain, "tx", transaction_hash)


def explorer_address(chain: ChainLinks | None, address: str | None) -> str | None:
    """The account's page, where the chain has an explorer."""
    return _explorer(chain, "address", address)


def _explorer(chain: ChainLinks | None, kind: str, of: str | None) -> str | None:
    if chain is None or chain.explorer_url is None or of is None:
        return None
    return f"{chain.explorer_url.rstrip('/')}/{kind}/{of}"


def safe_app_queue(chain: ChainLinks | None, safe: str) -> str | None:
    """The Safe's queue in Safe{Wallet}."""
    return None if chain is None else f"{_transactions(chain)}/queue?safe={chain.name}:{safe}"


def safe_app_transaction(chain: ChainLinks | None, safe: str, safe_tx_hash: str | None) -> str | None:
    """One transaction of the Safe in Safe{Wallet}."""
    if chain is None or safe_tx_hash is None:
        return None
    return f"{_transactions(chain)}/tx?safe={chain.name}:{safe}&id=multisig_{safe}_{safe_tx_hash}"


def _transactions(chain: ChainLinks) -> str:
    return f"{chain.safe_app_url.rstrip('/')}/transactions"
