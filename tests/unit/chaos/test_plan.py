"""The plan of a storm follows from its seed."""

import itertools

from tests.chaos.faults import LANES, plan


def test_a_seed_gives_the_same_plan_again_and_another_seed_another():
    assert plan(1, 120) == plan(1, 120)
    assert plan(1, 120) != plan(2, 120)


def test_a_lane_breaks_one_thing_at_a_time_and_all_kinds_come_up():
    faults = plan(1, 2000)
    for lane in LANES:
        own = [fault for fault in faults if fault.target in lane]
        assert all(before.at + before.seconds < after.at for before, after in itertools.pairwise(own))
    assert {(fault.target, fault.kind) for fault in faults} == {
        (target, kind) for lane in LANES for target, kinds in lane.items() for kind in kinds
    }
