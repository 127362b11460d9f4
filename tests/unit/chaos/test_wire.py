"""What the proxies understand of the wire."""

from tests.chaos.wire import PostgresDialogue, http_label

_STARTUP = (8).to_bytes(4, "big") + (80877103).to_bytes(4, "big") + (8).to_bytes(4, "big") + (196608).to_bytes(4, "big")


def message(kind: bytes, body: bytes) -> bytes:
    return kind + (len(body) + 4).to_bytes(4, "big") + body


def query(text: bytes) -> bytes:
    return message(b"Q", text + b"\0")


def ready(status: bytes) -> bytes:
    return message(b"Z", status)


def prepared(name: bytes, text: bytes) -> bytes:
    return message(b"P", name + b"\0" + text + b"\0\0\0")


def bound(name: bytes, value: bytes) -> bytes:
    return message(b"B", b"\0" + name + b"\0" + value)


def dialogue() -> PostgresDialogue:
    begun = PostgresDialogue()
    assert list(begun.sent(_STARTUP)) == []
    assert list(begun.answered(b"N" + ready(b"I"))) == []
    return begun


def test_a_commit_tells_what_its_transaction_wrote_and_is_acknowledged():
    one = dialogue()
    assert list(one.sent(query(b"BEGIN"))) == []
    assert list(one.answered(ready(b"T"))) == []
    assert list(one.sent(prepared(b"s1", b"UPDATE change_requests SET x = $1") + bound(b"s1", b"CR_1"))) == []
    assert list(one.answered(ready(b"T"))) == []
    assert list(one.sent(query(b"SELECT id FROM proposals FOR UPDATE OF proposals"))) == []
    assert list(one.answered(ready(b"T"))) == []
    assert list(one.sent(query(b"INSERT INTO events VALUES (1) ON CONFLICT DO UPDATE SET x = 1"))) == []
    assert list(one.answered(ready(b"T"))) == []

    ((sent, content),) = one.sent(query(b"COMMIT"))
    ((acknowledged, _),) = one.answered(message(b"C", b"COMMIT\0") + ready(b"I"))

    assert sent == acknowledged == "UPDATE change_requests, INSERT events"
    assert b"cr_1" in content


def test_a_statement_by_itself_that_writes_is_a_commit_and_one_that_reads_is_none():
    one = dialogue()
    assert list(one.sent(prepared(b"", b"SELECT 1") + bound(b"", b""))) == []
    assert list(one.answered(ready(b"I"))) == []
    assert [label for label, _ in one.sent(prepared(b"", b"DELETE FROM leases") + bound(b"", b""))] == ["DELETE leases"]
    assert [label for label, _ in one.answered(ready(b"I"))] == ["DELETE leases"]
    assert list(one.answered(ready(b"I"))) == []


def test_a_transaction_that_is_rolled_back_or_writes_nothing_is_no_commit():
    one = dialogue()
    for text, status in ((b"BEGIN", b"T"), (b"UPDATE t SET x = 1", b"T"), (b"ROLLBACK", b"I")):
        assert list(one.sent(query(text))) == []
        assert list(one.answered(ready(status))) == []
    for text, status in ((b"BEGIN", b"T"), (b"SELECT 1", b"T"), (b"COMMIT", b"I")):
        assert list(one.sent(query(text))) == []
        assert list(one.answered(ready(status))) == []


def test_messages_that_come_in_pieces_are_put_together():
    one = dialogue()
    whole = query(b"INSERT INTO events VALUES (1)")
    assert [found for byte in whole for found in one.sent(bytes([byte]))] != []
    assert [found for byte in ready(b"I") for found in one.answered(bytes([byte]))] != []


def test_labels_of_http_name_no_ids():
    head = b"POST /api/v2/safes/0x41675C099F32341bf84BFc5382aF534df5C7461a/multisig-transactions/?x=1 HTTP/1.1\r\n\r\n"
    assert http_label(head) == "POST /api/v2/safes/{}/multisig-transactions/"
    cvm = b"PATCH /api/v1/cvms/31fa651c6e1f45d4bfaddfe4b8e52950 HTTP/1.1\r\n\r\n"
    assert http_label(cvm) == "PATCH /api/v1/cvms/{}"
    rpc = b'POST / HTTP/1.1\r\n\r\n[{"jsonrpc":"2.0","method":"eth_call"},{"jsonrpc":"2.0","method":"eth_chainId"}]'
    assert http_label(rpc) == "POST / eth_call eth_chainId"
