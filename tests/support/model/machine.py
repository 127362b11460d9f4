"""The rules: whatever can happen to a change request, in any order, each a transition of the real store."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from service.domain.errors import Busy, CountersignError, NotVisibleYet, TokenDead, Unreachable
from service.domain.phala_facts import OperationStatus
from service.domain.reasons import Reason
from service.store.database import Database
from tests.support.model.drain import drain
from tests.support.model.interrupts import Fate
from tests.support.model.invariants import check, check_ends
from tests.support.model.outside import lost
from tests.support.model.tally import Tally
from tests.support.model.world import PATCHES, World

ANY = st.integers(0, 3)
CVM = st.integers(0, 2)
PATCH = st.sampled_from(PATCHES)
MOST_LIVE: Final = 6

PHALA: Final[Mapping[str, Callable[[], CountersignError]]] = {
    "lost": lambda: lost(Reason.PHALA_UNREACHABLE),
    "503": lambda: Unreachable("503", reason=Reason.PHALA_UNREACHABLE),
    "409": lambda: Busy("409"),
    "465": lambda: NotVisibleYet("465"),
    "466": lambda: TokenDead("466"),
}
OF_CALL: Final = {
    "cvm": ("lost", "503"),
    "prepare": ("lost", "503", "409"),
    "commit": ("lost", "503", "409", "465", "466"),
    "operations": ("lost", "503"),
    "running": ("lost", "503"),
}
SAFE_CALLS: Final = ("pending", "delegators", "post", "get", "at_nonce", "delete")
CHAIN_CALLS: Final = ("view", "block", "facts", "allowed", "ownership", "safe", "executions", "simulate")


class Machine(RuleBasedStateMachine):
    """A subclass names the database, and who counts what happened in a story when it ends."""

    database: Database
    told: Tally

    @initialize(hears=st.booleans())
    def begin(self, hears: bool) -> None:
        self.world = World(self.database, hears=hears)
        self.checked = 0

    # the API

    @rule(cvm=CVM, patch=PATCH, days=st.sampled_from([1, 30]))
    def submit_patch(self, cvm: int, patch: Mapping[str, Any], days: int) -> None:
        if len(self.world.live()) < MOST_LIVE:
            self.world.submit(cvm, patch, None, days)

    @rule(cvm=CVM, patch=PATCH, renewable=st.booleans())
    def submit_prepared(self, cvm: int, patch: Mapping[str, Any], renewable: bool) -> None:
        prepared = self.world.prepare_elsewhere(cvm, patch)
        if prepared is not None and len(self.world.live()) < MOST_LIVE:
            self.world.submit(cvm, patch if renewable else None, prepared, 30)

    @rule(which=ANY)
    def cancel(self, which: int) -> None:
        self._of_live(which, self.world.cancel)

    @rule(which=ANY)
    def refresh(self, which: int) -> None:
        self._of_live(which, self.world.refresh)

    @rule(which=ANY, cvm=CVM, patch=PATCH)
    def hand_in(self, which: int, cvm: int, patch: Mapping[str, Any]) -> None:
        prepared = self.world.prepare_elsewhere(cvm, patch)
        if prepared is not None:
            self._of_live(which, lambda request_id: self.world.hand_in(request_id, prepared))

    def _of_live(self, which: int, act: Callable[[str], None]) -> None:
        live = self.world.live()
        if live:
            act(live[which % len(live)])

    # Phala Cloud

    @rule(cvm=CVM, patch=PATCH)
    def prepare_elsewhere(self, cvm: int, patch: Mapping[str, Any]) -> None:
        self.world.prepare_elsewhere(cvm, patch)

    @rule(cvm=CVM, newest=ANY)
    def hear(self, cvm: int, newest: int) -> None:
        self.world.hear(cvm, newest)

    @rule(cvm=CVM)
    def click_link(self, cvm: int) -> None:
        self.world.cvms[cvm].link_clicked()

    @rule(cvm=CVM, failed=st.integers(0, 4))
    def finish(self, cvm: int, failed: int) -> None:
        self.world.finish(cvm, OperationStatus.COMPLETED if failed else OperationStatus.FAILED)

    @rule(cvm=CVM, data=st.data(), after=st.booleans())
    def phala_fails_once(self, cvm: int, data: st.DataObject, after: bool) -> None:
        method = data.draw(st.sampled_from(sorted(OF_CALL)))
        kind = data.draw(st.sampled_from(OF_CALL[method]))
        self.world.cvms[cvm].fail(method, PHALA[kind](), after_effect=after and kind == "lost")

    @rule(cvm=CVM, what=st.sampled_from(["down", "lags", "well", "well"]))
    def phala_is(self, cvm: int, what: str) -> None:
        self.world.cvms[cvm].down = Reason.PHALA_UNREACHABLE if what == "down" else None
        self.world.cvms[cvm].lags = what == "lags"

    @rule(cvm=CVM, salt=st.sampled_from(["", "", "", "another default"]))
    def drift(self, cvm: int, salt: str) -> None:
        self.world.cvms[cvm].hash_salt = salt

    # the owners, their Safe and its service

    @rule(which=ANY, owner=CVM)
    def sign(self, which: int, owner: int) -> None:
        self.world.sign(which, owner)

    @rule(which=ANY)
    def execute(self, which: int) -> None:
        self.world.execute(which)

    @rule(which=ANY)
    def propose_rejection(self, which: int) -> None:
        self.world.propose_rejection(which)

    @rule()
    def use_nonce(self) -> None:
        self.world.use_nonce()

    @rule(above=ANY)
    def propose_other(self, above: int) -> None:
        self.world.propose_other(above)

    @rule(which=ANY)
    def delete(self, which: int) -> None:
        self.world.delete(which)

    @rule(cvm=CVM, patch=PATCH)
    def allow_elsewhere(self, cvm: int, patch: Mapping[str, Any]) -> None:
        at = self.world.cvms[cvm]
        self.world.allow_elsewhere(at.hash_of(patch), at.info.device_id or "")

    @rule(patch=PATCH)
    def remove(self, patch: Mapping[str, Any]) -> None:
        self.world.remove(self.world.cvms[0].hash_of(patch))

    @rule(method=st.sampled_from(SAFE_CALLS), after=st.booleans())
    def safe_service_fails_once(self, method: str, after: bool) -> None:
        self.world.queue.fail(method, lost(Reason.SAFE_SERVICE_UNREACHABLE), after_effect=after)

    @rule(down=st.booleans())
    def safe_service_is(self, down: bool) -> None:
        self.world.queue.down = Reason.SAFE_SERVICE_UNREACHABLE if down else None

    # the chain

    @rule(blocks=st.integers(1, 3))
    def reorg(self, blocks: int) -> None:
        self.world.chain.reorg(blocks)

    @rule(blocks=st.integers(1, 4))
    def mine(self, blocks: int) -> None:
        self.world.chain.mine(empty=blocks - 1)

    @rule(method=st.sampled_from(CHAIN_CALLS))
    def chain_fails_once(self, method: str) -> None:
        self.world.chain.fail(method, Unreachable("503", reason=Reason.RPC_UNREACHABLE))

    @rule(blocks=ANY)
    def node_lags(self, blocks: int) -> None:
        self.world.chain.lag = blocks

    # the receiver of webhooks

    @rule(status=st.sampled_from([204, 204, 500]), after=st.booleans())
    def receiver_is(self, status: int, after: bool) -> None:
        self.world.receiver.status = status
        if after:
            self.world.receiver.fail("post", lost(Reason.INTERNAL_ERROR), after_effect=True)

    @rule()
    def deliver(self) -> None:
        self.world.deliver()

    # time and workers

    @rule(seconds=st.sampled_from([1, 5, 20, 61, 61, 700, 4000, 90_000, 1_000_000]))
    def let_pass(self, seconds: int) -> None:
        self.world.let_pass(seconds)

    @rule()
    def observe(self) -> None:
        self.world.observe()

    @rule()
    def sweep(self) -> None:
        self.world.sweep()

    @rule(seconds=st.sampled_from([0, 2, 15, 61]))
    def work_on(self, seconds: int) -> None:
        """Some sweeps and a block, as go by while nobody does anything."""
        self.world.let_pass(seconds)
        self.world.observe()
        self.world.sweep()
        self.world.sweep()

    @rule(
        which=ANY,
        fate=st.sampled_from(Fate),
        calls=st.integers(0, 12),
        after=st.booleans(),
        meanwhile=st.lists(st.integers(0, 9), max_size=2),
        taken_over=st.booleans(),
    )
    def work_interrupted(
        self, which: int, fate: Fate, calls: int, after: bool, meanwhile: list[int], taken_over: bool
    ) -> None:
        """A worker dies or freezes at a call; frozen, its row is taken over and more happens before it wakes."""
        world = self.world
        due = world.due_requests() or world.due_proposals()
        if not due:
            return
        row_id = due[which % len(due)]
        serve = world.serve_request if row_id.startswith("cr_") else world.serve_proposal

        def happens() -> None:
            for number in meanwhile:
                self._happens(number, which)
            if taken_over:
                serve(row_id)

        world.interrupted(fate, calls, happens, after=after)
        serve(row_id)

    def _happens(self, number: int, which: int) -> None:
        world, cvm, patch = self.world, which % 3, PATCHES[which % 2]
        kinds: list[Callable[[], object]] = [
            lambda: self.cancel(which),
            lambda: self.refresh(which),
            lambda: self.hand_in(which, cvm, patch),
            lambda: world.prepare_elsewhere(cvm, patch),
            lambda: world.hear(cvm, 0),
            world.cvms[cvm].link_clicked,
            lambda: world.execute(which),
            lambda: world.remove(world.cvms[cvm].hash_of(patch)),
            lambda: world.chain.reorg(1 + which % 3),
            world.observe,
        ]
        kinds[number]()

    # what must hold

    @invariant()
    def holds(self) -> None:
        """Only a transition can break what held before it."""
        if hasattr(self, "world") and self.world.transitions != self.checked:
            check(self.world)
            self.checked = self.world.transitions

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        try:
            drain(self.world)
            self.holds()
            check_ends(self.world)
        finally:
            self.told.add(self.world)
            self.world.close()
