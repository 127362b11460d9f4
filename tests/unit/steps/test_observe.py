from collections.abc import Sequence
from dataclasses import replace

import pytest

from service.domain.chain import Block, ChainFact, Cursor, FactKind
from service.domain.errors import Unreachable
from service.domain.reasons import Reason
from service.steps.observe import CURSOR_STRIDE, DEEP_REORG_BLOCKS, MAX_RANGES, READ_AGAIN, observe
from tests.support.builders import COMPOSE_HASH, DEVICE
from tests.support.fake_chain import FakeChain


def cursor_at(chain: FakeChain, number: int) -> Cursor:
    block = chain.block(number)
    assert block is not None
    chain.calls.clear()
    return Cursor(block)


def approve(chain: FakeChain) -> ChainFact:
    block = chain.mine((FactKind.HASH_ADDED, COMPOSE_HASH))
    (fact,) = chain.facts(block.number, block.number)
    chain.calls.clear()
    return fact


def test_the_first_look_starts_at_the_final_block(chain: FakeChain) -> None:
    fact = approve(chain)

    seen = observe(chain, None, ())

    assert seen.view == chain.view()
    assert seen.cursor == Cursor(seen.view.final)
    assert seen.facts == (fact,)
    assert (seen.orphaned, seen.behind, seen.detail) == ((), 0, None)


def test_a_block_without_news_costs_one_view_and_one_request_for_logs(chain: FakeChain) -> None:
    cursor = cursor_at(chain, chain.view().final.number)
    chain.mine(empty=CURSOR_STRIDE - 2)
    chain.calls.clear()

    seen = observe(chain, cursor, ())

    assert chain.calls == ["view", "facts"]
    assert seen.cursor == replace(cursor, read_to=seen.view.final.number)


def test_logs_that_came_with_the_head_are_not_asked_for_again(chain: FakeChain) -> None:
    cursor = cursor_at(chain, chain.view().final.number)
    fact = approve(chain)
    chain.tells_logs = True

    seen = observe(chain, cursor, ())

    assert chain.calls == ["view"]
    assert seen.facts == (fact,)


def test_logs_that_came_with_the_head_do_not_do_where_more_is_to_be_read(chain: FakeChain) -> None:
    """They were asked for above the cursor, which then turned out to have vanished."""
    lost = Cursor(Block(chain.view().final.number, "0x" + "ee" * 32))
    fact = approve(chain)
    chain.mine(empty=CURSOR_STRIDE)
    chain.tells_logs = True
    chain.calls.clear()

    seen = observe(chain, lost, ())

    assert "facts" in chain.calls
    assert fact in seen.facts


class Ranges(FakeChain):
    """Remembers which heights were asked for logs."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[int, int]] = []

    def facts(self, first: int, last: int) -> Sequence[ChainFact]:
        self.asked.append((first, last))
        return super().facts(first, last)


def test_a_look_reads_what_is_not_final_and_a_little_more() -> None:
    chain = Ranges()
    cursor = cursor_at(chain, chain.view().final.number)
    chain.mine(empty=20)
    first = observe(chain, cursor, ())
    chain.mine()

    again = observe(chain, first.cursor, ())

    assert chain.asked[-1] == (first.view.final.number - READ_AGAIN + 1, again.view.head.number)


def test_each_stride_reads_everything_once_more() -> None:
    """Logs that a node behind the same URL did not have when their blocks were news are found then."""
    chain = Ranges()
    cursor = cursor_at(chain, chain.view().final.number)
    seen = observe(chain, cursor, ())
    while seen.cursor.block == cursor.block:
        chain.mine()
        seen = observe(chain, seen.cursor, ())

    assert chain.asked[-1] == (cursor.block.number + 1, seen.view.head.number)
    assert seen.cursor == Cursor(seen.view.final)


def test_known_facts_below_what_is_read_cost_no_request(chain: FakeChain) -> None:
    cursor = cursor_at(chain, chain.view().final.number)
    fact = approve(chain)
    chain.mine(empty=20)
    first = observe(chain, cursor, (fact,))
    chain.mine()
    chain.calls.clear()

    observe(chain, first.cursor, (fact,))

    assert chain.calls == ["view", "facts"]


def test_the_cursor_moves_to_the_final_block_in_strides(chain: FakeChain) -> None:
    cursor = cursor_at(chain, chain.view().final.number)
    chain.mine(empty=CURSOR_STRIDE - 1)
    chain.calls.clear()

    seen = observe(chain, cursor, ())

    assert seen.cursor == Cursor(seen.view.final)
    assert chain.calls == ["view", "block", "facts"]


def test_the_cursors_block_comes_with_the_view_where_final_blocks_follow_each_other(chain: FakeChain) -> None:
    """So that no look at a block without news costs a third request."""
    cursor = Cursor(chain.view().final)
    moves = 0
    for _ in range(3 * CURSOR_STRIDE):
        chain.mine()
        chain.calls.clear()
        seen = observe(chain, cursor, ())
        assert chain.calls == ["view", "facts"]
        moves += seen.cursor.block != cursor.block
        cursor = seen.cursor
    assert moves == 3


def test_blocks_that_are_not_final_are_read_again(chain: FakeChain) -> None:
    cursor = cursor_at(chain, chain.view().final.number)
    fact = approve(chain)

    first = observe(chain, cursor, ())
    again = observe(chain, first.cursor, ())

    assert first.facts == again.facts == (fact,)
    assert observe(chain, first.cursor, (fact,)).facts == (), "what is known is no news"
    assert again.orphaned == ()


def test_facts_of_every_contract_are_told(chain: FakeChain) -> None:
    cursor = cursor_at(chain, chain.view().final.number)
    chain.mine((FactKind.HASH_ADDED, COMPOSE_HASH), app="0x" + "77" * 20)

    assert [fact.app_contract for fact in observe(chain, cursor, ()).facts] == ["0x" + "77" * 20]


def test_every_kind_of_fact_is_kept(chain: FakeChain) -> None:
    cursor = cursor_at(chain, chain.view().head.number)
    kinds = [(FactKind.HASH_REMOVED, COMPOSE_HASH), (FactKind.DEVICE_ADDED, DEVICE)]
    chain.mine(*kinds)

    assert [(fact.kind, fact.value) for fact in observe(chain, cursor, ()).facts] == kinds


def test_a_head_that_did_not_move_needs_no_logs(chain: FakeChain) -> None:
    cursor = cursor_at(chain, chain.view().head.number)

    observe(chain, cursor, ())

    assert chain.calls == ["view"]


class TestReorgs:
    def test_a_fact_of_a_vanished_block_is_orphaned(self, chain: FakeChain) -> None:
        cursor = cursor_at(chain, chain.view().final.number)
        fact = approve(chain)
        chain.reorg(1)

        seen = observe(chain, cursor, (fact,))

        assert seen.orphaned == (fact,)
        assert seen.facts == ()

    def test_the_same_transaction_in_another_block_is_a_new_fact(self, chain: FakeChain) -> None:
        cursor = cursor_at(chain, chain.view().final.number)
        old = approve(chain)
        chain.rewind(1)
        chain.reorg(1)
        new = approve(chain)

        seen = observe(chain, cursor, (old,))

        assert seen.orphaned == (old,)
        assert seen.facts == (new,)

    @pytest.mark.fault(
        "chain", "A node keeps logs back", "an empty answer is no evidence: the blocks are read again", "the next look"
    )
    def test_absence_from_the_logs_proves_nothing(self, chain: FakeChain) -> None:
        cursor = cursor_at(chain, chain.view().final.number)
        fact = approve(chain)
        invented = replace(fact, transaction_hash="0x" + "00" * 32, log_index=9)

        class Forgetful(FakeChain):
            def facts(self, first: int, last: int) -> list[ChainFact]:
                super().facts(first, last)
                return []

        forgetful = Forgetful()
        forgetful._blocks = chain._blocks

        assert observe(forgetful, cursor, (fact, invented)).orphaned == ()

    def test_a_node_that_is_behind_proves_nothing(self, chain: FakeChain) -> None:
        cursor = cursor_at(chain, chain.view().final.number)
        fact = approve(chain)
        chain.rewind(2)

        seen = observe(chain, cursor, (fact,))

        assert seen.orphaned == ()
        assert seen.cursor == cursor

    def test_a_node_far_behind_does_not_move_the_cursor_back(self, chain: FakeChain) -> None:
        cursor = cursor_at(chain, chain.view().head.number)
        chain.rewind(5)

        seen = observe(chain, cursor, ())

        assert (seen.cursor, seen.behind, seen.facts) == (cursor, 0, ())

    def test_a_final_block_that_vanished_steps_the_cursor_back(self, chain: FakeChain) -> None:
        chain.mine(empty=DEEP_REORG_BLOCKS + 100)
        gone = chain.view().final.number
        cursor = cursor_at(chain, gone)
        chain.reorg(chain.depth + 50)
        replayed = approve(chain)
        chain.mine(empty=CURSOR_STRIDE)

        seen = observe(chain, cursor, ())

        back = gone - DEEP_REORG_BLOCKS
        assert seen.detail == f"block {gone} had been final and vanished: scanning again from block {back}"
        assert seen.facts == (replayed,)
        assert seen.cursor == Cursor(seen.view.final)

    def test_a_final_block_that_vanished_is_noticed_by_what_comes_with_the_view(self, chain: FakeChain) -> None:
        chain.mine(empty=DEEP_REORG_BLOCKS + 100)
        cursor = Cursor(chain.view().final)
        chain.mine(empty=CURSOR_STRIDE - 2)
        cursor = observe(chain, cursor, ()).cursor
        chain.reorg(chain.depth + CURSOR_STRIDE + 5)
        replayed = approve(chain)
        chain.mine(empty=CURSOR_STRIDE)
        chain.calls.clear()

        seen = observe(chain, cursor, ())

        assert "vanished: scanning again" in str(seen.detail)
        assert seen.facts == (replayed,)
        assert chain.calls.count("block") == 1, "the one further back"

    def test_a_short_chain_steps_back_to_its_start(self, chain: FakeChain) -> None:
        cursor = Cursor(Block(5, "0x" + "00" * 32))
        chain.mine(empty=CURSOR_STRIDE)

        seen = observe(chain, cursor, ())

        assert seen.detail is not None
        assert seen.detail.endswith("from block 0")


class TestCatchingUp:
    def test_a_gap_is_read_in_ranges(self, chain: FakeChain) -> None:
        cursor = cursor_at(chain, 0)
        device = next(fact for fact in chain.facts(0, 20) if fact.value == DEVICE)
        facts = [device, *(approve(chain) for _ in range(6))]

        seen = observe(chain, cursor, (), max_range=4)

        assert chain.calls.count("facts") == 5
        assert list(seen.facts) == facts
        assert seen.behind == 0

    def test_a_big_gap_takes_several_looks_and_each_makes_progress(self, chain: FakeChain) -> None:
        cursor = cursor_at(chain, 0)
        early = next(fact for fact in chain.facts(0, 20) if fact.value == DEVICE)
        chain.mine(empty=200)
        late = approve(chain)
        chain.calls.clear()
        facts: list[ChainFact] = []
        looks = 0

        while True:
            seen = observe(chain, cursor, (), max_range=5)
            looks += 1
            facts.extend(seen.facts)
            if not seen.behind:
                break
            assert chain.calls.count("facts") <= looks * MAX_RANGES
            assert seen.cursor.block.number == cursor.block.number + 5 * MAX_RANGES
            cursor = seen.cursor

        assert facts == [early, late]
        assert looks == 5

    def test_a_node_that_does_not_know_where_it_got_to_is_no_progress(self) -> None:
        class Forgetful(FakeChain):
            def block(self, number: int) -> Block | None:
                return None if number == 50 else super().block(number)

        chain = Forgetful()
        chain.mine(empty=200)
        seen = observe(chain, cursor_at(chain, 0), (), max_range=5)

        assert seen.cursor.block.number == 0
        assert seen.behind > 0
        assert not seen.moved

    def test_it_says_how_far_it_got_until_it_caught_up(self, chain: FakeChain) -> None:
        cursor = cursor_at(chain, 0)
        chain.mine(empty=1202 + chain.depth - chain.view().head.number)
        said: list[str | None] = []

        while not said or said[-1]:
            seen = observe(chain, cursor, (), max_range=50)
            cursor = seen.cursor
            said.append(seen.detail)

        assert said == ["catching up: 703 of 1,203 blocks left", "catching up: 203 of 1,203 blocks left", None]
        assert cursor == Cursor(seen.view.final)

    def test_blocks_that_come_while_catching_up_are_not_skipped(self, chain: FakeChain) -> None:
        cursor = cursor_at(chain, 0)
        chain.mine(empty=100)
        early = approve(chain)
        first = observe(chain, cursor, (), max_range=5)
        chain.mine(empty=60)
        late = approve(chain)

        facts = list(first.facts)
        seen = first
        while seen.behind:
            seen = observe(chain, seen.cursor, (), max_range=5)
            facts.extend(seen.facts)

        assert [fact for fact in facts if fact.value == COMPOSE_HASH] == [early, late]

    def test_a_failed_look_moves_nothing(self, chain: FakeChain) -> None:
        chain.fail("facts", Unreachable("range too large", reason=Reason.RPC_UNREACHABLE))

        with pytest.raises(Unreachable):
            observe(chain, cursor_at(chain, 0), ())
