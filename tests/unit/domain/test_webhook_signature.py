import base64
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook, WebhookVerificationError

from service.domain.webhook_signature import headers, sign

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()


@given(
    key=st.binary(min_size=24, max_size=64),
    message_id=st.from_regex(r"evt_[0-9a-f]{32}", fullmatch=True),
    timestamp=st.integers(0, 4_000_000_000),
    body=st.text(),
)
def test_signatures_are_those_of_the_reference_package(key: bytes, message_id: str, timestamp: int, body: str) -> None:
    secret = "whsec_" + base64.b64encode(key).decode()
    theirs = Webhook(secret).sign(message_id, datetime.fromtimestamp(timestamp, UTC), body)

    assert sign(secret, message_id, timestamp, body.encode()) == theirs


def test_a_receiver_with_the_reference_package_accepts_it() -> None:
    now = int(datetime.now(UTC).timestamp())
    body = b'{"type":"change_request.completed"}'

    assert Webhook(SECRET).verify(body, headers(SECRET, "evt_1", now, body)) == {"type": "change_request.completed"}


def test_a_receiver_with_the_reference_package_refuses_another_body() -> None:
    now = int(datetime.now(UTC).timestamp())

    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(b"{}", headers(SECRET, "evt_1", now, b'{"a":1}'))


def test_the_example_of_the_specification() -> None:
    # standard-webhooks specification 1.0, its libraries' shared test vector
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    body = b'{"test": 2432232314}'

    signature = sign(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body)

    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_a_secret_that_is_no_base64_is_an_error() -> None:
    with pytest.raises(ValueError, match="base64"):
        sign("whsec_not base64!", "evt_1", 0, b"")
