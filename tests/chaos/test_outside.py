"""What is around Countersign breaks, for long; long spans are shifted, not waited for."""

from collections.abc import Callable, Iterator

import pytest

from sandbox.polling import wait_for
from service.domain.reasons import Reason
from service.phala import PhalaCloud
from tests.chaos.proxy import Answer, Behaviour, BlackHole, Corrupt, Cut, DropAnswers
from tests.chaos.site import Site
from tests.chaos.storm import Watcher
from tests.support.stack import Stack, compose, first_cvm

pytestmark = pytest.mark.chaos
LONG = 90.0
TRIES = 12


@pytest.fixture
def phala_clock(site: Site) -> Iterator[Callable[[float], None]]:
    """Sets Phala Cloud's clock off by so many seconds; right again afterwards."""
    yield lambda seconds: site.world.phala.settings(clock_offset=seconds) and None
    site.world.phala.settings(clock_offset=0)


def _assert_once(stack: Stack, request_id: str, cvm: str) -> None:
    stack.wait_for(request_id, "completed", seconds=LONG)
    assert len(stack.accepted_commits(cvm)) == 1


def _fails_for_long(site: Site, request_id: str, reason: Reason) -> None:
    """Shift the row to its next try, again and again, as hours would."""
    site.stack.wait_for_reason(request_id, reason, seconds=LONG)
    for _ in range(TRIES):
        before = _attempts(site, request_id)
        assert wait_for(lambda before=before: _hurried(site, request_id, before), LONG, every=0.5), (
            "it is tried no more"
        )
        assert site.stack.get(request_id)["reason"]["code"] == reason


def _attempts(site: Site, request_id: str) -> int:
    """Failed tries in a row, of the request and of its proposal."""
    query = """
        SELECT r.attempts + coalesce(p.attempts, 0) FROM change_requests r
          LEFT JOIN proposals p ON p.id = r.proposal_id WHERE r.id = %s
    """
    ((attempts,),) = site.rows(query, request_id)
    return int(attempts)


def _hurried(site: Site, request_id: str, before: int) -> bool:
    site.hurry()
    return _attempts(site, request_id) > before


@pytest.mark.fault(
    "Phala Cloud",
    "It answers 5xx for an hour, at prepare and at commit",
    "tried again with growing pauses, up to a minute; the request says why it waits",
    "at most 60 s beyond",
)
def test_phala_cloud_that_fails_for_an_hour_is_waited_for(site: Site, stack: Stack):
    app = site.world.add_app()
    site.proxies["phala"].behave(Answer(502))
    request_id = stack.submit(first_cvm(app), compose("an hour"))
    _fails_for_long(site, request_id, Reason.PHALA_UNREACHABLE)
    site.proxies["phala"].pass_on()
    site.hurry()
    stack.wait_for(request_id, "proposed", seconds=LONG)
    signed = stack.sign(request_id)
    site.proxies["phala"].behave(Answer(500))
    stack.execute(signed)
    stack.wait_for(request_id, "registered", seconds=LONG)
    _fails_for_long(site, request_id, Reason.PHALA_UNREACHABLE)
    site.proxies["phala"].pass_on()
    site.hurry()

    _assert_once(stack, request_id, first_cvm(app))


@pytest.mark.fault(
    "Safe Transaction Service",
    "It is down for a day before the proposal",
    "the proposal waits; when it is back it is posted once",
    "at most 10 min beyond",
)
def test_a_safe_service_that_is_down_for_a_day_is_waited_for(site: Site, stack: Stack):
    app = site.world.add_app()
    site.world.phala.slow_down("PATCH", "/cvms/*", 2, after=True)
    request_id = stack.submit(first_cvm(app), compose("a day"))
    assert wait_for(lambda: bool(site.world.phala.ledger("prepare", first_cvm(app))), LONG)
    site.proxies["safe_service"].behave(Answer(503))
    stack.wait_for(request_id, "prepared", seconds=LONG)
    _fails_for_long(site, request_id, Reason.SAFE_SERVICE_UNREACHABLE)
    site.proxies["safe_service"].pass_on()
    site.hurry()

    stack.approve(request_id)
    _assert_once(stack, request_id, first_cvm(app))
    assert len(stack.proposals(app, stack.get(request_id)["compose_hash"])) == 1


@pytest.mark.fault(
    "Phala Cloud",
    "Its clock is ten minutes behind or ahead of ours, and the answer to the commit is lost",
    "the operation is found all the same",
    "no delay",
)
@pytest.mark.parametrize("offset", [-600, 600])
def test_clocks_that_differ_do_not_hide_the_commit_that_was_accepted(
    site: Site, stack: Stack, phala_clock: Callable[[float], None], offset: int
):
    app = site.world.add_app()
    phala_clock(offset)
    request_id = stack.submit(first_cvm(app), compose(f"clock {offset}"))
    site.world.phala.drop_after("POST", "/cvms/*/commit-update")

    stack.approve(request_id)

    _assert_once(stack, request_id, first_cvm(app))


@pytest.mark.fault(
    "people",
    "Somebody clicks the commit link as soon as the owners executed",
    "its operation is found and adopted, nothing is committed twice",
    "no delay",
)
def test_a_person_who_clicks_the_commit_link_first_is_no_fault(site: Site, stack: Stack):
    app = site.world.add_app()
    cvm = first_cvm(app)
    with Watcher(site) as watcher:
        request_id = stack.submit(cvm, compose("clicked"))
        stack.wait_for(request_id, "proposed")
    (token,) = watcher.tokens
    compose_hash = stack.get(request_id)["compose_hash"]
    site.proxies["phala"].behave(Cut())
    transaction = stack.execute(stack.sign(request_id))
    with PhalaCloud(api_key=site.world.setup.phala_api_key, base_url=site.world.phala_url) as phala:
        phala.commit_cvm_update(id=cvm, token=token, compose_hash=compose_hash, transaction_hash=transaction)
    site.world.phala.wait_idle(cvm)
    site.proxies["phala"].pass_on()
    site.hurry()

    _assert_once(stack, request_id, cvm)


@pytest.mark.fault(
    "Phala Cloud",
    "Another operation runs on the CVM at the prepare and at the commit (409)",
    "the request says so and waits for its end",
    "1 to 60 s between tries",
)
def test_a_busy_cvm_is_waited_for_at_prepare_and_at_commit(site: Site, stack: Stack):
    app = site.world.add_app()
    cvm = first_cvm(app)
    site.world.phala.hold(cvm)
    request_id = stack.submit(cvm, compose("busy"))
    stack.wait_for_reason(request_id, Reason.PHALA_BUSY)
    site.world.phala.release(cvm)
    stack.wait_for(request_id, "proposed", seconds=LONG)
    site.world.phala.hold(cvm)
    stack.execute(stack.sign(request_id))
    stack.wait_for_reason(request_id, Reason.PHALA_BUSY, seconds=LONG)
    site.world.phala.release(cvm)

    _assert_once(stack, request_id, cvm)


@pytest.mark.fault(
    "webhooks out",
    "A receiver fails, hangs, breaks off, or answers nonsense, for a while",
    "every event arrives at least once, in the order of its request",
    "the next try, 5 s and more later",
)
@pytest.mark.parametrize("behaviour", [Answer(500), Answer(302), BlackHole(), Cut(), DropAnswers(), Corrupt()], ids=str)
def test_a_receiver_that_fails_gets_everything_when_it_is_back(site: Site, stack: Stack, behaviour: Behaviour):
    app = site.world.add_app()
    site.proxies["receiver"].behave(behaviour)
    request_id = stack.submit(first_cvm(app), compose(f"receiver {behaviour}"))
    stack.approve(request_id)
    stack.wait_for(request_id, "completed", seconds=LONG)
    site.proxies["receiver"].pass_on()
    wanted = [event["seq"] for event in stack.events(request_id)]

    def arrived() -> list[int]:
        site.hurry()
        told = [one.payload["data"] for one in site.receiver.received() if one.verified]
        return list(dict.fromkeys(data["sequence"] for data in told if data["id"] == request_id))

    assert wait_for(lambda: arrived() == wanted, LONG, every=0.5), (arrived(), wanted)
