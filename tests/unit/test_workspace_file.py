"""What the workspace file says of Phala Cloud's webhooks."""

import json

import pytest

from service.settings import SettingsError
from service.workspace_file import read

FILE = {"slug": "acme", "phala_api_key": "key", "safes": []}
SECRET = "whsec_Zm9yIHRlc3RzIG9ubHksIG5vIHNlY3JldA"


def test_several_secrets_count_at_once() -> None:
    spec = read(json.dumps({**FILE, "phala_webhook_secrets": [SECRET, SECRET + "2"]}))
    assert [secret.get_secret_value() for secret in spec.phala_webhook_secrets] == [SECRET, SECRET + "2"]
    assert read(json.dumps(FILE)).phala_webhook_secrets == []


@pytest.mark.parametrize("secret", ["", "whsec_short"])
def test_a_secret_that_anybody_could_guess_is_refused_and_not_repeated(secret: str) -> None:
    with pytest.raises(SettingsError, match=r"phala_webhook_secrets\.0: .*at least 24 characters") as caught:
        read(json.dumps({**FILE, "phala_webhook_secrets": [secret]}))
    assert "whsec_short" not in str(caught.value)
