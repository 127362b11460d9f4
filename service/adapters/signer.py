from eth_account import Account
from eth_typing import Hash32
from pydantic import SecretStr

from service.domain.hexes import bytes32


class LocalSigner:
    """The service's own key, held in memory. Neither ``repr`` nor any error shows it.

    Args:
        private_key: 32 bytes as hex, with or without ``0x``.

    Raises:
        ValueError: not 32 bytes of hex, or no key of secp256k1.
    """

    def __init__(self, private_key: SecretStr) -> None:
        try:
            self._account = Account.from_key(bytes32(private_key.get_secret_value()))
        except Exception:  # noqa: BLE001 - whatever the libraries raise may quote the key: nothing of it goes on
            raise ValueError("the private key is no 32-byte hex key of secp256k1") from None

    @property
    def address(self) -> str:
        """Checksummed address."""
        return str(self._account.address)

    def sign(self, safe_tx_hash: str) -> str:
        """Sign a 32-byte digest as it is, without the ``eth_sign`` prefix.

        Args:
            safe_tx_hash: ``0x``-prefixed bytes32.

        Returns:
            65 bytes (r, s, v 27/28) as ``0x`` hex.
        """
        digest = Hash32(bytes.fromhex(bytes32(safe_tx_hash)[2:]))
        return "0x" + bytes(self._account.unsafe_sign_hash(digest).signature).hex()

    def __repr__(self) -> str:
        return f"LocalSigner({self.address})"
