"""What is told of requests to the API: figures by the template of the route, and spans to a collector."""

import subprocess
import sys

import pytest

from service.api.examples import SUBMIT_PATCH
from service.domain.snapshots import ChangeRequest as ChangeRequestSnapshot
from service.settings import Settings
from service.store import snapshots
from service.store.database import Database
from service.store.tables import ChangeRequest
from service.telemetry import traces, work
from service.wiring import StartRefused, observed
from tests.support import rows
from tests.support.otlp import collecting
from tests.support.routes import UNKNOWN_IDS
from tests.support.scraping import scraping
from tests.support.served_api import Api
from tests.support.threads import wait_until
from workers import telling
from workers.verbs import Verb

PATH = "/v1/change-requests"
ONE = f"{PATH}/{{request_id}}"
CALLERS_TRACE, CALLERS_SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def test_requests_are_counted_by_route_and_status_and_show_no_id(api: Api):
    with scraping() as scraped:
        before = scraped.scrape()
        api.acme.get(f"{PATH}/{UNKNOWN_IDS['request_id']}")
        request_id = api.acme.post(PATH, json=SUBMIT_PATCH).json()["id"]
        api.acme.get(f"{PATH}/{request_id}", params={"wait": 0.01})
        api.acme.delete(PATH)
        api.nobody.get("/v1/nothing-of-ours")
        api.nobody.request("BREW", "/healthz")
        # They are counted when all of an answer was sent, which its reader can hear of before.
        wait_until(
            lambda: scraped.scrape().total("http_requests_total") == before.total("http_requests_total") + 6, "all"
        )
        after = scraped.scrape()

    def grew(method: str, route: str, status: int) -> float:
        labels = {"method": method, "route": route, "status": str(status)}
        return after("http_requests_total", **labels) - before("http_requests_total", **labels)

    assert grew("GET", ONE, 404) == 1
    assert grew("POST", PATH, 202) == 1
    assert grew("GET", ONE, 200) == 1
    assert grew("DELETE", PATH, 405) == 1
    assert grew("GET", "none", 404) == 1
    assert grew("other", "/healthz", 405) == 1
    timed = {"method": "GET", "route": ONE}
    assert after("http_request_seconds_count", **timed) - before("http_request_seconds_count", **timed) == 1
    for shown in (request_id, UNKNOWN_IDS["request_id"], "nothing-of-ours", "BREW", "csk_"):
        assert shown not in after.text


def test_the_id_of_the_post_is_kept_for_the_logs_of_the_steps(api: Api, database: Database):
    answer = api.acme.post(PATH, json=SUBMIT_PATCH)

    row = rows.read(database, ChangeRequest, answer.json()["id"])

    assert row.api_request_id == answer.headers["x-request-id"]
    assert row.traceparent is None, "nothing is traced"


def _fail_in_a_step(request: ChangeRequestSnapshot) -> None:
    with telling.of_request(request, Verb.PREPARE):
        with work.call("phala", method="PATCH") as made:
            made.answered(465)
        raise RuntimeError("hunter2")


def test_a_request_is_a_span_of_the_callers_trace_and_its_steps_link_to_it(
    api: Api, database: Database, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")  # milliseconds, read by the SDK
    with collecting() as collector:
        settings = Settings.model_validate(
            {"otlp_endpoint": collector.url, "otlp_headers": {"x-collector-key": "key-of-the-collector"}}
        )
        with observed(settings, "serve"):
            caller = {"traceparent": f"00-{CALLERS_TRACE}-{CALLERS_SPAN}-01"}
            answer = api.acme.post(PATH, json=SUBMIT_PATCH, headers=caller)
            request_id = answer.json()["id"]
            with database.reads() as session:
                request = snapshots.change_request(database, session, request_id)
            with pytest.raises(RuntimeError):
                _fail_in_a_step(request)
            wait_until(lambda: len(collector.spans) == 3, "all have come")
        spans = {span.name: span for span in collector.spans}
        raw = collector.raw

    post, step, call = spans[f"POST {PATH}"], spans["step prepare"], spans["phala PATCH"]
    assert (post.trace_id, post.parent_id) == (CALLERS_TRACE, CALLERS_SPAN)
    assert step.links == [(post.trace_id, post.span_id)]
    assert step.trace_id != post.trace_id
    assert (call.trace_id, call.parent_id) == (step.trace_id, step.span_id)
    told = {name.removeprefix("countersign."): value for name, value in step.attributes.items()}
    assert told["request_id"] == answer.headers["x-request-id"]
    assert told["change_request_id"] == call.attributes["countersign.change_request_id"] == request_id
    assert told["workspace_id"] == request.workspace.id
    assert (step.failed, call.failed, post.failed) == (True, False, False)
    assert call.attributes["countersign.outcome"] == "4xx"
    assert b"key-of-the-collector" in raw, "the collector was told its key, as a header"
    for secret in (b"hunter2", b"csk_", b"image:", b"phala-key-of"):
        assert secret not in raw


def test_without_a_receiver_nothing_is_traced_and_its_libraries_are_not_loaded():
    assert traces.traceparent() is None
    heavy = "import service.wiring, service.api.app, sys; print([n for n in sys.modules if 'opentelemetry.sdk' in n])"

    done = subprocess.run([sys.executable, "-c", heavy], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


def test_traces_without_their_libraries_refuse_the_start(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    settings = Settings(otlp_endpoint="http://127.0.0.1:1")
    with (
        pytest.raises(StartRefused, match=r"OTLP_ENDPOINT is set: .*countersign\[tracing\]"),
        observed(settings, "beat"),
    ):
        pytest.fail("it started")


@pytest.mark.parametrize(
    "url", ["collector:4318", "http://u:p@collector", "https://collector/?key=1", "ftp://collector"]
)
def test_a_receiver_with_credentials_in_its_address_is_refused(url: str):
    with pytest.raises(ValueError, match="otlp_headers"):
        Settings(otlp_endpoint=url)
