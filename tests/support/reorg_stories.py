"""Stories of a chain that reorganises while a service looks at it: random, and the same again from the same seed."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from random import Random

DEEPEST_FINALITY = 8


@dataclass(frozen=True, slots=True)
class Deed:
    """A transaction about the hash of one schedule: ``allow`` or ``remove``. Another ``twist`` is another hash."""

    schedule: int
    verb: str
    twist: int = 0


@dataclass(frozen=True, slots=True)
class Content:
    """What a block holds. On the same parent the same content makes the same block, another ``mark`` another one."""

    deeds: tuple[Deed, ...]
    mark: int = 0


@dataclass(frozen=True, slots=True)
class Branch:
    """New blocks in place of the newest ``dropped`` ones (none of them: the chain just grows).

    Attributes:
        blocks: what each new block holds.
        at_once: the node changes branch in one moment; else it first loses its blocks, then gets the new ones one by
            one, and the service looks in between.
    """

    dropped: int
    blocks: tuple[Content, ...]
    at_once: bool = True


@dataclass(frozen=True, slots=True)
class Observe:
    """The service reads the chain."""


@dataclass(frozen=True, slots=True)
class Serve:
    """The service serves the rows that are due, after some seconds have gone by."""

    seconds: int = 0


@dataclass(frozen=True, slots=True)
class Meanwhile:
    """``branch`` comes in the middle of the service's next look, before that many of its exchanges with the node."""

    branch: Branch
    exchanges: int


Move = Branch | Observe | Serve | Meanwhile


@dataclass(frozen=True, slots=True)
class Story:
    """What happens on one chain. ``finality`` in confirmations; ``by_safe`` says for each schedule who allows."""

    seed: int
    finality: int
    by_safe: tuple[bool, ...]
    moves: tuple[Move, ...]

    @property
    def reorgs(self) -> int:
        """How many reorgs the story has."""
        branches = [move.branch if isinstance(move, Meanwhile) else move for move in self.moves]
        return sum(isinstance(branch, Branch) and branch.dropped > 0 for branch in branches)


def story(seed: int, schedules: int) -> Story:
    """The story of a seed, in which every schedule has an approval of its own at a place of its own."""
    random = Random(seed)  # noqa: S311 - a story, no secret
    finality = random.randint(1, DEEPEST_FINALITY)
    teller = _Teller(random, finality, schedules)
    by_safe = tuple(random.random() < 0.25 for _ in range(schedules))
    return Story(seed, finality, by_safe, tuple(teller.tell(random.randint(7, 12))))


@dataclass
class _Teller:
    """Keeps the canonical chain as a list of blocks, so that nothing that was ever final is dropped."""

    random: Random
    finality: int
    schedules: int
    chain: list[Content] = field(default_factory=list)
    longest: int = 0
    later: list[Deed] = field(default_factory=list)
    left: tuple[int, tuple[Content, ...]] | None = None
    """The branch left by the newest reorg, with the length of the one that took its place."""
    marks: int = 0

    def tell(self, steps: int) -> Iterator[Move]:
        yield self._grow(self.finality)  # whatever was before is final
        start = {index: self.random.randrange(1 + steps * 2 // 3) for index in range(self.schedules)}
        yield from self._looks()
        for step in range(steps):
            self.later += [Deed(index, "allow") for index, when in start.items() if when == step]
            branch = self._reorg() if self.random.random() < 0.5 else self._grow(self.random.randint(1, 3))
            yield from self._with_looks(branch)
        yield self._grow(1)
        for _ in range(self.finality):  # until everything is final, and nothing new happens
            yield self._branch(0, (Content(()),))
            if self.random.random() < 0.3:
                yield from self._looks()

    def _with_looks(self, branch: Branch) -> Iterator[Move]:
        dice = self.random.random()
        if dice < 0.35:
            yield Meanwhile(branch, self.random.randint(1, 12))
            yield from self._looks()
            return
        yield branch
        if dice < 0.8:
            yield from self._looks()

    def _looks(self) -> Iterator[Move]:
        """Mostly a tick and its consequences; sometimes one without the other, so that a reorg comes between them."""
        dice = self.random.random()
        if dice < 0.8:
            yield Observe()
        if dice > 0.15:
            yield Serve(self.random.choice((0, 0, 2, 10, 60)))

    def _grow(self, blocks: int) -> Branch:
        now = [deed for deed in self.later if self.random.random() < 0.7]
        self.later = [deed for deed in self.later if deed not in now]
        now += [Deed(deed.schedule, "remove") for deed in self._standing() if self.random.random() < 0.04]
        self.left = None
        return self._branch(0, self._spread([(self.random.randrange(blocks), deed) for deed in now], blocks))

    def _reorg(self) -> Branch:
        possible = self.finality - (self.longest - len(self.chain))
        if self.left is not None and self.left[0] <= possible and self.random.random() < 0.3:
            return self._go_back(*self.left)
        if possible < 1:
            return self._grow(self.random.randint(1, 2))
        dropped = self.random.randint(1, possible)
        old = tuple(self.chain[-dropped:])
        kept = [one for offset, block in enumerate(old) for deed in block.deeds for one in self._fate(offset, deed)]
        first, *others = self._spread(kept, max(1, dropped + self.random.choice((-1, 0, 0, 0, 1, 1, 2))))
        self.marks += 1
        self.left = 1 + len(others), old
        return self._branch(dropped, (replace(first, mark=self.marks), *others))

    def _go_back(self, dropped: int, old: tuple[Content, ...]) -> Branch:
        """The node finds that the branch it left is the longer one after all: the very same blocks return."""
        self.left = None
        known = {deed for block in old for deed in block.deeds}
        self.later = [deed for deed in self.later if deed not in known]
        return self._branch(dropped, old)

    def _branch(self, dropped: int, blocks: tuple[Content, ...]) -> Branch:
        self.chain = [*self.chain[: len(self.chain) - dropped], *blocks]
        self.longest = max(self.longest, len(self.chain))
        return Branch(dropped, blocks, at_once=self.random.random() < 0.7)

    def _fate(self, offset: int, deed: Deed) -> Sequence[tuple[int, Deed]]:
        """Where a transaction of the old branch stands in the new one: (offset, transaction), or nowhere."""
        dice = self.random.random()
        if dice < 0.25:
            kept = [(offset, deed)]
        elif dice < 0.45:
            kept = [(self.random.randint(0, offset + 2), deed)]
        elif dice < 0.6:
            kept = [(self.random.randint(0, offset + 2), replace(deed, twist=deed.twist + 1))]
        else:
            if dice < 0.94:
                self.later.append(self.random.choice((deed, replace(deed, twist=deed.twist + 1))))
            return []
        if deed.verb == "allow" and self.random.random() < 0.12:
            kept.append((kept[0][0], Deed(deed.schedule, "remove")))
        return kept

    def _spread(self, deeds: list[tuple[int, Deed]], blocks: int) -> tuple[Content, ...]:
        """Blocks that hold the deeds, each schedule's in their order, none before its offset."""
        contents: list[list[Deed]] = [[] for _ in range(blocks)]
        reached: dict[int, int] = {}
        for offset, deed in deeds:
            at = min(blocks - 1, max(offset, reached.get(deed.schedule, 0)))
            reached[deed.schedule] = at
            contents[at].append(deed)
        return tuple(Content(tuple(deeds)) for deeds in contents)

    def _standing(self) -> list[Deed]:
        """The last deed of each schedule, where that allowed its hash."""
        last = {deed.schedule: deed for block in self.chain for deed in block.deeds}
        return [deed for deed in last.values() if deed.verb == "allow"]
