"""What an RPC endpoint needs of HTTP, over real sockets: credentials in its URL, proxies, compressed answers."""

import gzip
import json
from base64 import b64encode

import httpx
import pytest

from service.adapters.rpc_http import RpcHttp, transport_to
from tests.support.hostile_http import Say, serving

LIMIT = 1024
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture(autouse=True)
def no_proxy_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def post(url: str) -> bytes:
    transport = transport_to(url)
    try:
        return RpcHttp(url, transport, 5).post({"id": 1}, limit=LIMIT).body
    finally:
        transport.close()


def test_the_body_is_json_and_its_path_and_query_are_kept():
    with serving(lambda _: Say(200, b"{}")) as server:
        assert post(f"{server.url}/v3/key?project=1") == b"{}"
        (request,) = server.requests
    assert (request.method, request.target, request.json()) == ("POST", "/v3/key?project=1", {"id": 1})
    assert request.headers["content-type"] == "application/json"
    assert "authorization" not in request.headers
    assert "cookie" not in request.headers


def test_credentials_of_the_url_are_basic_authentication():
    with serving(lambda _: Say(200, b"{}")) as server:
        post(server.url.replace("http://", "http://us%40er:pa%3Ass@"))
        (request,) = server.requests
    assert request.headers["authorization"] == "Basic " + b64encode(b"us@er:pa:ss").decode()
    assert "@" not in request.headers["host"]


def test_compressed_answers_are_inflated():
    body = json.dumps({"result": "0x" + "00" * 200}).encode()
    with serving(lambda _: Say(200, gzip.compress(body), {"Content-Encoding": "gzip"})) as server:
        assert post(server.url) == body


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
def test_the_proxy_of_the_environment_is_used_unless_the_host_is_excepted(name: str, monkeypatch: pytest.MonkeyPatch):
    with serving(lambda _: Say(200, b"by proxy")) as proxy, serving(lambda _: Say(200, b"direct")) as node:
        monkeypatch.setenv(name, proxy.url)
        assert post("http://rpc.test/key") == b"by proxy"
        assert proxy.requests[0].target == "http://rpc.test/key"
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        assert post(node.url) == b"direct"


@pytest.mark.parametrize("url", ["http://[", "ftp://rpc.test", "http://" + "a" * 64 + ".test"])
def test_what_cannot_be_reached_is_a_fault_of_the_exchange(url: str):
    with pytest.raises((httpx.HTTPError, httpx.InvalidURL, UnicodeError)):
        post(url)
