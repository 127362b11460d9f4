"""What links of the API are made of: the settings, and what everybody knows."""

from base64 import b64encode

from service import wiring
from service.settings import ChainSettings, Settings

KEY = b64encode(bytes(32)).decode()
NOWHERE = "http://127.0.0.1:9"


def test_a_well_known_chain_has_an_explorer_unless_the_settings_name_one(database_url: str):
    given = {
        8453: {"name": "base"},
        1: {"name": "eth", "explorer_url": "https://explorer.example"},
        31337: {"name": "anvil"},
    }
    chains = {
        chain_id: ChainSettings.model_validate({"rpc_urls": [NOWHERE], "safe_service_url": NOWHERE, **members})
        for chain_id, members in given.items()
    }
    settings = Settings.model_validate(
        {
            "database_url": database_url,
            "api_keys": {"acme": "key"},
            "encryption_keys": {"k1": KEY},
            "fingerprint_key": KEY,
            "chains": chains,
        }
    )
    parts = wiring.for_api(settings)
    assert {chain_id: links.explorer_url for chain_id, links in parts.chains.items()} == {
        8453: "https://basescan.org",
        1: "https://explorer.example",
        31337: None,
    }
    parts.database.engine.dispose()
