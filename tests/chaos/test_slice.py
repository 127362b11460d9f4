"""A short slice of `make chaos`, in every run of the tests."""

from tests.chaos import crashes
from tests.chaos.points import Board, Point
from tests.chaos.report import total
from tests.chaos.site import Site
from tests.chaos.storm import weather

SEED = 2709
FAULTS = 8
POINTS = (
    Point("approved", "proposal posting", "safe_service", "POST /api/v2/safes/{}/multisig-transactions/", "out", 1),
    Point("approved", "registered", "phala", "POST /api/v1/cvms/{}/commit-update", "in", 1),
)


def test_a_few_requests_come_through_a_few_faults(site: Site):
    site.add_apps(2, 4)

    storm = weather(site, SEED, requests=8, faults=FAULTS, say=print)

    assert storm.taken == 8
    assert len(storm.faults) == FAULTS, storm.failed_faults
    assert {name: found for name, found in storm.violations.items() if found} == {}
    assert set(storm.states) <= {"completed", "cancelled", "rejected"}


def test_a_worker_that_is_killed_as_its_proposal_or_its_commit_goes_out_does_neither_twice(site: Site, board: Board):
    done = crashes.be_killed_at(site, board, POINTS, lanes=len(POINTS))

    assert all(one.reached for one in done)
    assert total(crashes.violations(done)) == 0, crashes.violations(done)
