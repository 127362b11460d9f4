from collections import Counter
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from service.domain.states import EDGES, HOLDS_CVM, LIVE, MEANINGS, TERMINAL, TRANSITIONS, State, may_follow

MAIN_LINE = [
    State.RECEIVED,
    State.PREPARED,
    State.PROPOSED,
    State.EXECUTED,
    State.REGISTERED,
    State.COMMITTED,
    State.COMPLETED,
]


def reachable_from(start: State) -> set[State]:
    seen, todo = {start}, [start]
    while todo:
        for target in TRANSITIONS[todo.pop()] - seen:
            seen.add(target)
            todo.append(target)
    return seen


def test_every_state_is_reachable() -> None:
    assert reachable_from(State.RECEIVED) == set(State)


def test_terminal_states_have_no_exit_and_every_other_state_has_one() -> None:
    for state in State:
        assert (not TRANSITIONS[state]) == (state in TERMINAL)


def test_from_every_live_state_an_end_can_be_reached() -> None:
    for state in LIVE:
        assert State.COMPLETED in reachable_from(state)
        assert State.FAILED in TRANSITIONS[state]


def test_the_main_line() -> None:
    for source, target in pairwise(MAIN_LINE):
        assert may_follow(source, target)


def test_only_a_reorg_leads_back() -> None:
    order = {state: position for position, state in enumerate(MAIN_LINE)}
    back = [(e.source, e.target) for e in EDGES if e.target in order and order[e.target] <= order[e.source]]
    assert back == [(State.EXECUTED, State.PREPARED)]


def test_nothing_is_committed_without_a_final_approval_except_what_was_applied_at_once() -> None:
    others = [edge for edge in EDGES if edge.target is State.COMMITTED and not edge.when.startswith("applied already")]
    assert {edge.source for edge in others} == {State.REGISTERED, State.RECEIVED}


def test_an_accepted_update_can_not_be_cancelled() -> None:
    assert TRANSITIONS[State.COMMITTED] == {State.COMPLETED, State.FAILED}


def test_only_owners_who_were_asked_can_reject() -> None:
    assert [edge.source for edge in EDGES if edge.target is State.REJECTED] == [State.PROPOSED]


def test_each_edge_is_named_once_with_its_reason() -> None:
    assert set(Counter((edge.source, edge.target) for edge in EDGES).values()) == {1}
    assert all(edge.when for edge in EDGES)


def test_each_state_has_a_meaning() -> None:
    assert list(MEANINGS) == list(State)


def test_live_and_terminal_are_all() -> None:
    assert set(State) == LIVE | TERMINAL
    assert not LIVE & TERMINAL
    assert LIVE - {State.COMMITTED} == HOLDS_CVM


@given(st.sampled_from(list(State)), st.sampled_from(list(State)))
def test_no_state_follows_itself_and_the_table_is_the_edges(source: State, target: State) -> None:
    named = any((edge.source, edge.target) == (source, target) for edge in EDGES)
    assert may_follow(source, target) == named
    assert not may_follow(source, source)
