import json
from typing import Any

import pytest

from service.commands.workspace_file import read
from service.settings import SettingsError
from service.store.workspaces import WorkspaceSpec

SECRET = "whsec_Zm9yIHRlc3RzIG9ubHksIG5vIHNlY3JldA"
SAFE = "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359"
SHORT_NAMES = {"anvil": 31337}


def spec(*safes: Any, **members: Any) -> WorkspaceSpec:
    file = {"slug": "acme", "phala_api_key": "phak_secret", "safes": safes, **members}
    return read(json.dumps(file), SHORT_NAMES)


def refused(*safes: Any, **members: Any) -> str:
    with pytest.raises(SettingsError) as caught:
        spec(*safes, **members)
    assert "phak_secret" not in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("written", "chain_id"),
    [
        ({"chain_id": 8453, "address": SAFE}, 8453),
        ({"chain_id": 8453, "address": f"base:{SAFE}"}, 8453),
        ({"address": f"base:{SAFE}"}, 8453),
        (f"base:{SAFE}", 8453),
        (f"anvil:{SAFE}", 31337),
    ],
)
def test_addresses_with_and_without_the_chains_short_name(written: Any, chain_id: int):
    read_back = spec(written, external_apps=[written])
    assert read_back.safes == read_back.external_apps == [(chain_id, SAFE)]


@pytest.mark.parametrize(
    ("written", "where", "words"),
    [
        ({"chain_id": 1, "address": f"base:{SAFE}"}, "safes.0", "'base' is chain 8453, but chain_id is another one"),
        (f"nowhere:{SAFE}", "safes.0", "'nowhere' is neither configured nor well known"),
        (SAFE, "safes.0", "give chain_id, or the chain's short name"),
        ({"address": SAFE}, "safes.0", "give chain_id, or the chain's short name"),
        (f"base:{SAFE.lower()}", "safes.0.address", "not a checksummed address"),
        (f"base:{SAFE[2:]}", "safes.0.address", "not a checksummed address"),
        (f"base:base:{SAFE}", "safes.0.address", "not a checksummed address"),
        ("base:", "safes.0.address", "not a checksummed address"),
        ({"chain_id": 0, "address": SAFE}, "safes.0.chain_id", "greater than 0"),
        ({"chain_id": "8453", "address": f"base:{SAFE}"}, "safes.0", "but chain_id is another one"),
        ({"chain_id": 8453, "address": 1}, "safes.0.address", "valid string"),
        ({"chain_id": 8453}, "safes.0.address", "required"),
        ({"chain_id": 8453, "address": SAFE, "name": "x"}, "safes.0.name", "not permitted"),
        (8453, "safes.0", "should be an object"),
    ],
)
def test_what_names_no_contract_is_refused_at_its_place(written: Any, where: str, words: str):
    told = refused(written)
    assert told.startswith(f"workspace: {where}: ")
    assert words in told


def test_the_same_contract_written_twice_is_one():
    assert len(set(spec({"chain_id": 8453, "address": SAFE}, f"base:{SAFE}").safes)) == 1


def test_several_secrets_of_phala_clouds_webhooks_count_at_once():
    read_back = spec(phala_webhook_secrets=[SECRET, SECRET + "2"])
    assert [secret.get_secret_value() for secret in read_back.phala_webhook_secrets] == [SECRET, SECRET + "2"]
    assert spec().phala_webhook_secrets == []


@pytest.mark.parametrize("secret", ["", "whsec_short"])
def test_a_webhook_secret_that_anybody_could_guess_is_refused_and_not_repeated(secret: str):
    told = refused(phala_webhook_secrets=[secret])
    assert "phala_webhook_secrets.0: " in told
    assert "at least 24 characters" in told
    assert "whsec_short" not in told
