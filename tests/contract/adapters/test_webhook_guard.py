"""Webhooks reach no address that they must not: a real listener is there, and is never connected to."""

import socket
import ssl
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from service.adapters.poster import HttpPoster
from service.adapters.webhook_guard import WebhookGuard, system_resolver
from service.domain.errors import AddressRefused, CountersignError, Unreachable
from service.domain.webhook_urls import AllowList
from tests.support.hostile_http import Say, Tls, serving, tls_receiver

HEADERS = {"webhook-id": "evt_1", "content-type": "application/json"}


class Listener:
    """Takes connections on every address of this machine, and counts them."""

    def __init__(self) -> None:
        self.taken = 0
        self._socket = socket.create_server(("", 0), backlog=64)
        self.port = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self.taken += 1
            connection.close()

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()


@pytest.fixture(scope="module")
def listener() -> Iterator[Listener]:
    listener = Listener()
    with socket.create_connection(("127.0.0.1", listener.port)):
        pass
    while not listener.taken:
        pass
    listener.taken = 0
    yield listener
    listener.close()


USUAL = ssl.create_default_context()


@contextmanager
def poster(guard: WebhookGuard, *, ssl_context: ssl.SSLContext = USUAL) -> Iterator[HttpPoster]:
    made = HttpPoster(guard, seconds=2.0, ssl_context=ssl_context)
    yield made
    made.close()


def refused(listener: Listener, url: str, guard: WebhookGuard, kind: type[CountersignError] = AddressRefused) -> str:
    """That a POST is refused before anything is connected to; what is said."""
    with poster(guard) as made, pytest.raises(kind) as refusal:
        made.post(url, HEADERS, b"{}")
    assert listener.taken == 0
    assert "s3cret" not in str(refusal.value)
    return refusal.value.detail


ADDRESSES = [
    "0.0.0.0",  # noqa: S104 - an address that is refused
    "0.1.2.3", "10.0.0.1", "10.255.255.255", "100.64.0.1", "100.127.255.255", "100.100.100.200",
    "127.0.0.1", "127.1.2.3", "127.255.255.254", "168.63.129.16", "169.254.0.1", "169.254.169.254", "169.254.170.2",
    "172.16.0.1", "172.31.255.255", "192.0.0.1", "192.0.0.192", "192.0.2.1", "192.88.99.1", "192.168.0.1",
    "198.18.0.1", "198.19.255.255", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.250", "240.0.0.1",
    "255.255.255.255",
    "::", "::1", "::2", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:8.8.8.8", "::ffff:0:127.0.0.1", "64:ff9b::7f00:1",
    "64:ff9b::808:808", "64:ff9b:1::1", "100::1", "2001::1", "2001:2::1", "2001:10::1", "2001:20::1", "2001:db8::1",
    "2002:7f00:1::1", "2002:808:808::1", "3fff::1", "4000::1", "5f00::1", "fc00::1", "fd00:ec2::254", "fd20:ce::254",
    "fdff::1", "fe80::1", "fec0::1", "ff02::1", "ff0e::1",
]  # fmt: skip


@pytest.mark.parametrize("address", ADDRESSES)
class TestAddresses:
    def test_written_in_the_url(self, listener: Listener, address: str):
        host = f"[{address}]" if ":" in address else address
        said = refused(listener, f"https://{host}:{listener.port}/s3cret", WebhookGuard())
        assert said == "the URL leads to an address that is not public"

    def test_behind_a_name(self, listener: Listener, address: str):
        guard = WebhookGuard(resolve=lambda *_: [address])
        refused(listener, f"https://hooks.example.com:{listener.port}/s3cret", guard)

    def test_beside_a_public_one_of_the_same_name(self, listener: Listener, address: str):
        guard = WebhookGuard(resolve=lambda *_: ["93.184.215.14", address])
        refused(listener, f"https://hooks.example.com:{listener.port}/s3cret", guard)


@pytest.mark.parametrize(
    "host",
    [
        "2130706433", "0x7f000001", "0x7F.0.0.1", "0x7f.1", "017700000001", "0177.0.0.1", "127.1", "127.0.1",
        "127.0.0.01", "0127.0.0.1", "00000127.0.0.1", "127.0.0.1.", "127.0.0.0x1", "1.127.0.0.1", "0", "0x", "0x0",
        "4294967295", "256.256.256.256", "localhost.", "localhost..", "example.com.", ".example.com", "example..com",
        "a.0x7f000001", "foo.1", "-example.com", "example-.com", "a" * 64 + ".com", ("a" * 60 + ".") * 5 + "com",
        "127\u30020\u30020\u30021", "127\uff0e0\uff0e0\uff0e1", "①②⑦.⓪.⓪.①", "\uff11\uff12\uff17.0.0.1",
        "ⓛⓞⓒⓐⓛⓗⓞⓢⓣ", "loc\u200balhost", "loc\u00adalhost",
        "localho\u017ft", "\u212aube.example", "exämple.com", "%6cocalhost", "127.0.0.%31", "127%2e0.0.1",
        "127.0.0.1%00", "[::1%25lo]", "[fe80::1%eth0]", "[::ffff:7f00:1", "[127.0.0.1]", "[1::2::3]", "[]", "",
        "local host", "local\thost", "local\nhost", "127.0.0.1\\@example.com", "example.com\\.evil",
        "example.com#@127.0.0.1", "*", "a,b", "a;b", "{host}",
    ],
)  # fmt: skip
def test_hosts_that_are_not_plainly_one_are_refused(listener: Listener, host: str):
    """Whatever a resolver would make of them."""
    guard = WebhookGuard(resolve=lambda *_: ["127.0.0.1"])
    refused(listener, f"https://{host}:{listener.port}/s3cret", guard)


@pytest.mark.parametrize(
    "url",
    [
        "http://hooks.example.com/s3cret",
        "http://93.184.215.14/s3cret",
        "https://user@hooks.example.com/s3cret",
        "https://user:s3cret@hooks.example.com/",
        "https://hooks.example.com@127.0.0.1/s3cret",
        "https://hooks.example.com:22/s3cret",
        "https://hooks.example.com:80/s3cret",
        "https://hooks.example.com:0/s3cret",
        "https://hooks.example.com:65536/s3cret",
        "https://hooks.example.com:99999999/s3cret",
        "https://hooks.example.com:+443/s3cret",
        "https://hooks.example.com:/s3cret",
        "https://hooks.example.com/s3cret#fragment",
        "https://hooks.example.com/s3cret\r\nX-Evil: 1",
        "https://hooks.example.com/s3cret x",
        "https://hooks.example.com/s3cret\x00",
        "https://hooks.example.com/é",
        "https:hooks.example.com/s3cret",
        "https:/hooks.example.com/s3cret",
        "https:///hooks.example.com/s3cret",
        "https:\\\\hooks.example.com\\s3cret",
        "//hooks.example.com/s3cret",
        "hooks.example.com/s3cret",
        "ftp://hooks.example.com/s3cret",
        "file:///etc/passwd",
        "gopher://127.0.0.1:25/s3cret",
        "unix:///var/run/docker.sock",
        " https://hooks.example.com/s3cret",
        "https://hooks.example.com/s3cret\n",
        "https://hooks.example.com/" + "s3cret" * 400,
        "",
    ],
)
def test_urls_that_are_not_plainly_https_are_refused(listener: Listener, url: str):
    refused(listener, url, WebhookGuard(resolve=lambda *_: ["127.0.0.1"]))


def test_a_name_of_this_machine_is_refused_whatever_the_system_makes_of_it(listener: Listener):
    refused(listener, f"https://localhost:{listener.port}/", WebhookGuard(resolve=system_resolver))


class Changing:
    """A resolver that gives another answer each time."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self.asked = 0
        self._answers = answers

    def __call__(self, host: str, port: int) -> Sequence[str]:
        assert (host, port > 0) == ("hooks.example.com", True)
        self.asked += 1
        return self._answers[min(self.asked, len(self._answers)) - 1]


@pytest.mark.fault(
    "webhooks out",
    "A receiver's name leads inside after it was checked",
    "the address that was checked is called, no other",
    "at once",
)
def test_an_answer_that_changes_after_the_check_is_of_no_use(listener: Listener):
    """The name is asked for once; what was checked is what is connected to. Nobody listens on the second loopback."""
    resolve = Changing(["127.0.0.2"], ["127.0.0.1"])
    allowed = AllowList.of(["127.0.0.2"])
    with socket.create_server(("127.0.0.2", 0)) as closing:
        port = closing.getsockname()[1]
    with socket.create_server(("127.0.0.1", port)) as internal:
        internal.settimeout(0.2)
        with poster(WebhookGuard(allowed, resolve=resolve)) as made:
            with pytest.raises(Unreachable):
                made.post(f"https://hooks.example.com:{port}/", HEADERS, b"{}")
            assert resolve.asked == 1
            with pytest.raises(AddressRefused):
                made.post(f"https://hooks.example.com:{port}/", HEADERS, b"{}")
        with pytest.raises(TimeoutError):
            internal.accept()
    assert listener.taken == 0


def test_a_connection_kept_from_before_is_not_used_once_the_name_leads_elsewhere():
    resolve = Changing(["127.0.0.1"], ["127.0.0.1", "169.254.169.254"])
    with (
        serving(lambda _: Say(204)) as server,
        poster(WebhookGuard(AllowList.of(["hooks.example.com"]), resolve=resolve)) as made,
    ):
        url = server.url.replace("127.0.0.1", "hooks.example.com")
        assert made.post(url, HEADERS, b"{}").status == 204
        with pytest.raises(AddressRefused):
            made.post(url, HEADERS, b"{}")
    assert len(server.requests) == 1


class TestTls:
    @pytest.fixture
    def receiver(self, tmp_path: Path) -> Iterator[Tls]:
        with tls_receiver(tmp_path, "hooks.example.com") as served:
            yield served

    @pytest.fixture
    def guard(self) -> WebhookGuard:
        return WebhookGuard(AllowList.of(["127.0.0.1"]), resolve=lambda *_: ["127.0.0.1"])

    def test_the_name_is_asked_for_and_the_certificate_is_checked_against_it(self, receiver: Tls, guard: WebhookGuard):
        """The connection goes to the checked address; server name and Host are those of the URL."""
        with poster(guard, ssl_context=receiver.trusting) as made:
            assert made.post(f"https://hooks.example.com:{receiver.port}/", HEADERS, b"{}").status == 204
        assert receiver.names == ["hooks.example.com"]
        assert receiver.requests[0].headers["host"] == f"hooks.example.com:{receiver.port}"

    def test_a_certificate_of_another_name_is_no_connection(self, receiver: Tls, guard: WebhookGuard):
        with poster(guard, ssl_context=receiver.trusting) as made, pytest.raises(Unreachable) as fault:
            made.post(f"https://other.example.com:{receiver.port}/", HEADERS, b"{}")
        assert not fault.value.outcome_unknown
        assert receiver.requests == []

    def test_a_certificate_that_nobody_vouches_for_is_no_connection(self, receiver: Tls, guard: WebhookGuard):
        with poster(guard) as made, pytest.raises(Unreachable):
            made.post(f"https://hooks.example.com:{receiver.port}/", HEADERS, b"{}")
        assert receiver.requests == []


@pytest.mark.fault("webhooks out", "A receiver redirects", "not followed; a failed attempt", "5 s until the next")
def test_a_redirect_leads_nowhere(listener: Listener):
    elsewhere = {"Location": f"http://127.0.0.1:{listener.port}/"}
    with (
        serving(lambda _: Say(307, b"", elsewhere)) as server,
        poster(WebhookGuard(AllowList.of(["127.0.0.1"]))) as made,
    ):
        assert made.post(server.url, HEADERS, b"{}").status == 307
    assert listener.taken == 0


@pytest.mark.parametrize(
    "variable", ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"]
)
def test_no_proxy_of_the_environment_is_asked(listener: Listener, monkeypatch: pytest.MonkeyPatch, variable: str):
    monkeypatch.setenv(variable, f"http://127.0.0.1:{listener.port}")
    guard = WebhookGuard(AllowList.of(["127.0.0.1"]))
    with serving(lambda _: Say(204)) as server, poster(guard) as made:
        assert made.post(server.url, HEADERS, b"{}").status == 204
    assert listener.taken == 0


class TestAllowList:
    def test_a_listed_name_may_lead_inside_by_http_on_any_port(self):
        guard = WebhookGuard(AllowList.of(["hooks.internal"]), resolve=lambda *_: ["127.0.0.1"])
        with serving(lambda _: Say(204)) as server, poster(guard) as made:
            port = server.url.rpartition(":")[2]
            assert made.post(f"http://Hooks.Internal:{port}/a?b=c", HEADERS, b"{}").status == 204
        (request,) = server.requests
        assert (request.headers["host"], request.target) == (f"hooks.internal:{port}", "/a?b=c")

    @pytest.mark.parametrize("host", ["sub.hooks.internal", "internal", "xhooks.internal"])
    def test_it_means_exactly_that_name(self, listener: Listener, host: str):
        guard = WebhookGuard(AllowList.of(["hooks.internal"]), resolve=lambda *_: ["127.0.0.1"])
        refused(listener, f"https://{host}:{listener.port}/", guard)
        refused(listener, f"http://{host}:{listener.port}/", guard)

    @pytest.mark.parametrize("address", ["169.254.169.254", "fd00:ec2::254", "::ffff:10.0.0.1", "0.1.2.3", "224.0.0.1"])
    def test_some_addresses_stay_refused(self, listener: Listener, address: str):
        guard = WebhookGuard(AllowList.of(["hooks.internal", "0.0.0.0/0", "::/0"]), resolve=lambda *_: [address])
        refused(listener, f"http://hooks.internal:{listener.port}/", guard)
        host = f"[{address}]" if ":" in address else address
        refused(listener, f"http://{host}:{listener.port}/", guard)

    def test_a_network_covers_addresses_and_names_that_lead_there(self):
        guard = WebhookGuard(AllowList.of(["10.1.0.0/16"]), resolve=lambda *_: ["10.1.2.3"])
        assert guard.target("http://10.1.255.1:25/").port == 25
        assert [str(one) for one in guard.addresses(guard.target("https://hooks.example.com/"))] == ["10.1.2.3"]
        with pytest.raises(AddressRefused):
            guard.target("http://10.2.0.1/")
        with pytest.raises(AddressRefused):  # http is for what is listed itself
            guard.target("http://hooks.example.com/")

    @pytest.mark.parametrize("entry", ["", "10.0.0.0/33", "10.0.0.1/8", "http://hooks", "a b", "*.internal", "é"])
    def test_an_entry_that_is_nothing_is_an_error(self, entry: str):
        with pytest.raises(ValueError, match="is no host name"):
            AllowList.of([entry])


class TestPublic:
    @pytest.mark.parametrize("address", ["1.1.1.1", "8.8.8.8", "172.32.0.1", "100.128.0.1", "2606:4700::1111"])
    def test_public_addresses_are_allowed(self, address: str):
        guard = WebhookGuard(resolve=lambda *_: [address])
        assert [str(one) for one in guard.addresses(guard.target("https://hooks.example.com:8443/"))] == [address]

    @pytest.mark.parametrize("resolved", [OSError("no such name"), []])
    def test_a_name_that_does_not_resolve_is_out_of_reach(self, resolved: OSError | list[str]):
        def resolve(host: str, port: int) -> Sequence[str]:
            assert host
            assert port
            if isinstance(resolved, OSError):
                raise resolved
            return resolved

        guard = WebhookGuard(resolve=resolve)
        guard.check("https://hooks.example.com/")  # it may resolve later
        with pytest.raises(Unreachable):
            guard.addresses(guard.target("https://hooks.example.com/"))

    def test_a_resolver_that_never_answers_is_not_waited_for(self):
        over = threading.Event()
        guard = WebhookGuard(resolve=lambda *_: [str(over.wait())], seconds=0.05)
        with pytest.raises(Unreachable, match="too long"):
            guard.addresses(guard.target("https://hooks.example.com/"))
        over.set()
        guard.close()
