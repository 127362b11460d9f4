"""The scan of the flow tests for secrets finds them, in every form in which they could have been written down."""

import base64
from collections.abc import Callable

import pytest

from tests.support.leaks import Secrets


@pytest.mark.parametrize(
    ("planted", "place"),
    [
        (lambda secret: secret.encode(), "log"),
        (lambda secret: secret.upper().encode(), "log"),
        (lambda secret: secret.replace("-", "").encode(), "log"),
        (lambda secret: secret.encode().hex().encode(), "table"),
        *((lambda secret, n=n: base64.b64encode(b"x" * n + secret.encode() + b"yy"), "broker") for n in range(4)),
    ],
)
def test_the_scan_finds_a_planted_secret(planted: Callable[[str], bytes], place: str):
    secret = "31fa651c-6e1f-45d4-bfad-dfe4b8e52950"
    secrets = Secrets({"token": secret, "other": "0123456789abcdef0123"})
    assert secrets.found_in({place: b"before " + planted(secret) + b" after", "clean": b"nothing"}) == [
        f"token in {place}"
    ]
