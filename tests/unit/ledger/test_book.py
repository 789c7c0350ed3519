"""The book alone: whatever clients do and whenever they or the owner die, no span holds more than N."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from doorward.core.errors import UnavailableError
from doorward.core.obligation import Budget, Limit
from doorward.ledger import entries as kept
from doorward.ledger.account import Account
from doorward.ledger.book import Book, Nothing, Short
from doorward.ledger.messages import Acquire, Claim, Frames, Report, Wanted, framed
from doorward.ledger.windows import Window

CAPACITY, SECONDS = 10, 7
LIMIT = Limit("p", CAPACITY, SECONDS)
KEY = ("a", LIMIT)


def wanted(amount: int = 1, extra: int = 0, *, counter: str = "a", capacity: int = CAPACITY) -> Wanted:
    return Wanted(counter, SECONDS, capacity, amount, extra)


@dataclass
class Worker:
    name: str
    account: Account = field(default_factory=Account)
    until: float = 0.0


@dataclass
class World:
    """Owner and workers with a clock; every entry goes to a journal that outlives the owner."""

    now: float = 0.0
    workers: list[Worker] = field(default_factory=lambda: [Worker(f"w{n}") for n in range(3)])
    journal: list[kept.Entry] = field(default_factory=list)
    book: Book = field(default_factory=Book)
    used: list[float] = field(default_factory=list)
    born: int = 0

    def change(self, *entries: kept.Entry) -> None:
        for entry in entries:
            self.book.apply(entry, self.now)
            self.journal.append(entry)

    def use(self, worker: Worker) -> None:
        if self.now < worker.until and worker.account.take((KEY,), 1, self.now) is not None:
            self.used.append(self.now)
            return
        leases = worker.account.leases_of((KEY,))
        ask = [wanted(1, leases[0].ask(), counter=leases[0].counter)]
        found = self.book.consider(worker.name, ask, self.now)
        if isinstance(found, Short):
            for _, holder in found.recalls:
                other = next(each for each in self.workers if each.name == holder)
                other.account.give_back([leases[0].counter])
                self.tell(other)
            leases = worker.account.leases_of((KEY,))
            found = self.book.consider(worker.name, ask, self.now, last=True)
        if not isinstance(found, kept.Leased):
            leases[0].answered(0)
            return
        worker.until = self.now + 1
        self.change(kept.Extended(worker.name, self.now + 2), found)
        worker.account.put(leases[0], found.parts[0][2] - 1)
        leases[0].answered(found.parts[0][2] - 1)
        worker.account.note(leases[0], self.now, 1)
        self.used.append(self.now)

    def tell(self, worker: Worker) -> None:
        if (report := worker.account.report()) is not None:
            self.change(kept.Reported(worker.name, report))
            worker.account.kept(report.seq)

    def die(self, index: int) -> None:
        worker = self.workers[index]
        self.change(kept.Parted(worker.name, self.now, worker.until))
        self.born += 1
        self.workers[index] = Worker(f"w{index}-{self.born}")

    def restart(self) -> None:
        self.book = Book()
        for entry in self.journal:
            self.book.apply(entry, 0.0)
        self.book.part_all(self.now)
        fresh = Book()
        for entry in self.book.state(self.now):
            fresh.apply(entry, self.now)
        self.book, self.journal = fresh, list(fresh.state(self.now))
        for worker in self.workers:
            worker.account.forget_leases()
            worker.until = 0.0
            for report in worker.account.reports():
                self.change(kept.Reported(worker.name, report))
            self.change(kept.Resumed(worker.name, {}))
            worker.account.kept(self.book.sessions[worker.name].seq)

    def most_in_any_span(self) -> int:
        spans = (sum(1 for at in self.used if start <= at < start + SECONDS) for start in self.used)
        return max(spans, default=0)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("use"), st.integers(0, 2)),
        st.tuples(st.just("use"), st.integers(0, 2)),
        st.tuples(st.just("use"), st.integers(0, 2)),
        st.tuples(st.just("tell"), st.integers(0, 2)),
        st.tuples(st.just("die"), st.integers(0, 2)),
        st.tuples(st.just("idle"), st.integers(0, 2)),
        st.tuples(st.just("restart"), st.just(0)),
        st.tuples(st.just("wait"), st.integers(1, 30)),
    ),
    max_size=120,
)


@settings(max_examples=300, deadline=None)
@given(STEPS)
def test_no_span_ever_holds_more_than_the_limit_whoever_dies(steps: list[tuple[str, int]]) -> None:
    world = World()
    for step, number in steps:
        match step:
            case "use":
                world.use(world.workers[number])
            case "tell":
                world.tell(world.workers[number])
            case "die":
                world.die(number)
            case "idle":
                world.workers[number].account.give_back_unused()
                world.tell(world.workers[number])
            case "restart":
                world.restart()
            case "wait":
                world.now += number / 10
    assert world.most_in_any_span() <= CAPACITY


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 2), min_size=40, max_size=80), st.integers(0, 80))
def test_while_nobody_dies_exactly_the_limit_passes_even_if_the_owner_restarts(
    who: list[int], when: int
) -> None:
    world = World()
    for index, number in enumerate(who):
        if index == when:
            world.restart()
        world.use(world.workers[number])
    assert len(world.used) == CAPACITY


@pytest.mark.parametrize("restarted", [False, True])
def test_what_a_dead_worker_leased_counts_until_its_last_moment_has_left_the_span(restarted: bool) -> None:  # noqa: FBT001
    world = World()
    for _ in range(4):
        world.use(world.workers[0])
    until = world.workers[0].until
    held = world.book.windows[next(iter(world.book.windows))].leased
    assert held >= 4
    world.die(0)
    if restarted:
        world.restart()
    world.now = until + SECONDS - 0.01
    for _ in range(20):
        world.use(world.workers[1])
    assert len(world.used) - 4 == CAPACITY - held
    world.now = until + SECONDS
    world.use(world.workers[1])
    assert len(world.used) - 4 == CAPACITY - held + 1


def test_the_state_rebuilds_the_book() -> None:
    world = World()
    for number in (0, 1, 2, 0):
        world.use(world.workers[number])
    world.tell(world.workers[0])
    world.change(kept.Placed("w0", "dana", 1))
    entry = world.book.claim(Claim(1, "dpop", b"m", 100.0, 0.0), 1.0)
    assert entry is not None
    state = list(world.book.state(world.now))
    again = Book()
    for each in state:
        again.apply(each, world.now)
    assert list(again.state(world.now)) == state


def test_a_report_that_comes_twice_counts_once() -> None:
    book = Book()
    book.apply(kept.Leased("s", (("a", SECONDS, 3),)), 0.0)
    report = kept.Reported("s", Report(1, {"a": [(0.0, 1)]}))
    book.apply(report, 0.0)
    book.apply(report, 0.0)
    assert book.windows["a"].used == 1
    assert book.windows["a"].leased == 2


def test_a_counter_named_twice_in_one_request_needs_both() -> None:
    book = Book()
    assert isinstance(book.consider("s", [wanted(6), wanted(5)], 0.0), Nothing)
    assert isinstance(book.consider("s", [wanted(5), wanted(5)], 0.0), kept.Leased)


def test_no_room_refuses_and_time_makes_room() -> None:
    book = Book(max_windows=2)
    for counter in "ab":
        found = book.consider("s", [wanted(counter=counter)], 0.0)
        assert isinstance(found, kept.Leased)
        book.apply(found, 0.0)
        book.apply(kept.Reported("s", Report(ord(counter), {counter: [(0.0, 1)]})), 0.0)
    with pytest.raises(UnavailableError, match="room"):
        book.consider("s", [wanted(counter="c")], 5.0)
    assert isinstance(book.consider("s", [wanted(counter="c")], 8.0), kept.Leased)


def test_one_name_counts_limit_and_budget_apart() -> None:
    leases = Account().leases_of((("a", Limit("p", 5, 60)), ("a", Budget("p", 5, "tokens", 60))))
    assert leases[0].counter != leases[1].counter


def test_a_window_with_many_uses_stays_small_and_never_counts_too_little() -> None:
    window = Window(100)
    for number in range(20_000):
        window.use(number / 250, 1)
    assert len(window) < 12_000
    assert window.left(80.0, 20_000) == 0
    for moment in (101.0, 120.0, 150.0, 179.9):
        true = sum(1 for number in range(20_000) if number / 250 > moment - 100)
        assert true <= 20_000 - window.left(moment, 20_000) <= true + 10


def test_a_use_taken_back_frees_its_place_also_when_it_was_merged() -> None:
    window = Window(100)
    for number in range(3000):
        window.use(number / 1000, 1)
    window.take_back(2.5, 1)
    window.take_back(0.5, 1)
    assert window.used == 2998


def test_uses_reported_out_of_order_leave_in_order() -> None:
    window = Window(10)
    for at in (3.0, 1.0, 2.0):
        window.use(at, 1)
    assert [at for at, _ in window.uses()] == [1.0, 2.0, 3.0]
    assert window.wait(5.0, capacity=3, need=1) == 6.0


@given(st.lists(st.integers(1, 40), max_size=20), st.integers(1, 17))
def test_messages_are_cut_whole_from_any_pieces(lengths: list[int], piece: int) -> None:
    sent = [Acquire(n, [wanted(counter="c" * n)]) for n in lengths]
    data, frames = b"".join(map(framed, sent)), Frames()
    got = [body for at in range(0, len(data), piece) for body in frames.feed(data[at : at + piece])]
    assert [framed(each)[4:] for each in sent] == got
