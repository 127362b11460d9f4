import pytest
from pydantic import SecretStr

from service.api.auth import ApiKeys
from service.api.problems import UNAUTHORIZED, Problem

KEYS = ApiKeys({"acme": SecretStr("key-of-acme"), "other": SecretStr("key-of-öther")})


@pytest.mark.parametrize(
    ("header", "workspace"),
    [
        ("Bearer key-of-acme", "acme"),
        ("bearer key-of-acme", "acme"),
        ("Bearer  key-of-acme ", "acme"),
        ("Bearer key-of-öther", "other"),
    ],
)
def test_a_key_belongs_to_its_workspace(header: str, workspace: str):
    assert KEYS.workspace_of(header) == workspace


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "key-of-acme",
        "Basic key-of-acme",
        "Bearer key-of-acm",
        "Bearer key-of-acme,",
        "Bearer \ud800",
    ],
)
def test_anything_else_is_unauthorized(header: str | None):
    with pytest.raises(Problem) as refusal:
        KEYS.workspace_of(header)
    assert refusal.value.kind is UNAUTHORIZED
    assert dict(refusal.value.headers or {})["WWW-Authenticate"].startswith("Bearer")


def test_an_empty_key_is_refused():
    with pytest.raises(ValueError, match="of workspace acme is empty"):
        ApiKeys({"acme": SecretStr("")})


def test_a_key_shared_by_workspaces_is_refused():
    with pytest.raises(ValueError, match="same API key") as refusal:
        ApiKeys({"acme": SecretStr("shared"), "other": SecretStr("shared")})
    assert "shared" not in str(refusal.value)
