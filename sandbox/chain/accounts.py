"""anvil's public dev accounts and their parts in the local world. Never fund these on a real chain."""

from eth_account import Account
from eth_account.signers.local import LocalAccount

from sandbox.anvil import MNEMONIC


def dev_account(index: int, mnemonic: str = MNEMONIC) -> LocalAccount:
    """Derive account number `index` of the mnemonic (path m/44'/60'/0'/0/index)."""
    Account.enable_unaudited_hdwallet_features()
    account: LocalAccount = Account.from_mnemonic(mnemonic, account_path=f"m/44'/60'/0'/0/{index}")
    return account


OWNERS = (dev_account(0), dev_account(1), dev_account(2))
OWNER_ADDRESSES = tuple(str(account.address) for account in OWNERS)
DELEGATE = dev_account(3)
OUTSIDER = dev_account(4)
DEPLOYER = dev_account(5)  # pays for deployments and executions; owns nothing for good
