import json

import pytest

from service import settings as configuration
from service.settings import SettingsError


def chain(name: str) -> dict[str, object]:
    return {"name": name, "rpc_urls": ["http://127.0.0.1:9"], "safe_service_url": "http://127.0.0.1:9"}


def test_chains_by_their_short_names(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COUNTERSIGN_CHAINS", json.dumps({"8453": chain("base"), "31337": chain("anvil")}))
    assert configuration.load().short_names() == {"base": 8453, "anvil": 31337}


def test_two_chains_of_one_name_are_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COUNTERSIGN_CHAINS", json.dumps({"8453": chain("base"), "31337": chain("base")}))
    with pytest.raises(SettingsError, match=r"COUNTERSIGN_CHAINS: .*two chains are called base"):
        configuration.load()
