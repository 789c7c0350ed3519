"""One timer for all deadlines."""

from __future__ import annotations

from doorward.http1.wheel import TICK, Deadline, Wheel


class Loop:
    """A clock that is turned by hand."""

    def __init__(self):
        self.now, self.timers = 1000.0, []

    def time(self):
        return self.now

    def call_at(self, when, callback):
        timer = Timer(when, callback)
        self.timers.append(timer)
        return timer

    def run_until(self, then):
        while due := sorted((t for t in self.timers if t.when <= then), key=lambda t: t.when):
            self.timers.remove(due[0])
            self.now = max(self.now, due[0].when)
            if not due[0].cancelled:
                due[0].callback()
        self.now = then


class Timer:
    def __init__(self, when, callback):
        self.when, self.callback, self.cancelled = when, callback, False

    def cancel(self):
        self.cancelled = True


def standing():
    loop = Loop()
    fired = []
    wheel = Wheel(loop)
    return loop, fired, lambda name: Deadline(wheel, lambda: fired.append((name, loop.now)))


def test_a_deadline_fires_once_and_within_a_tick():
    loop, fired, deadline = standing()
    deadline("a").set(2.0)
    loop.run_until(1001.9)
    assert fired == []
    loop.run_until(1010.0)
    assert [name for name, _ in fired] == ["a"]
    assert 1002.0 <= fired[0][1] <= 1002.0 + 2 * TICK


def test_a_deadline_that_is_moved_on_fires_at_its_new_time_only():
    loop, fired, deadline = standing()
    one = deadline("a")
    one.set(1.0)
    loop.run_until(1000.9)
    one.set(5.0)
    loop.run_until(1005.8)
    assert fired == []
    loop.run_until(1006.2)
    assert len(fired) == 1


def test_a_deadline_that_is_moved_forward_does_not_wait_for_its_old_time():
    loop, fired, deadline = standing()
    one = deadline("a")
    one.set(3600.0)
    one.set(1.0)
    loop.run_until(1001.2)
    assert len(fired) == 1
    loop.run_until(5000.0)
    assert len(fired) == 1


def test_a_cleared_deadline_does_not_fire_and_can_be_set_again():
    loop, fired, deadline = standing()
    one = deadline("a")
    one.set(1.0)
    one.clear()
    loop.run_until(1002.0)
    assert fired == []
    assert not one.is_set
    one.set(1.0)
    loop.run_until(1004.0)
    assert len(fired) == 1


def test_ten_thousand_deadlines_need_one_timer_at_a_time():
    loop, fired, deadline = standing()
    for number in range(10_000):
        deadline(number).set(1 + number % 7)
    assert len([t for t in loop.timers if not t.cancelled]) == 1
    loop.run_until(1010.0)
    assert len(fired) == 10_000
    assert [t for t in loop.timers if not t.cancelled] == []


def test_a_deadline_may_set_itself_again_while_it_fires():
    loop, fired, _ = standing()
    wheel = Wheel(loop)
    holder = []

    def again():
        fired.append(loop.now)
        if len(fired) < 3:
            holder[0].set(1.0)

    holder.append(Deadline(wheel, again))
    holder[0].set(1.0)
    loop.run_until(1010.0)
    assert len(fired) == 3


def test_what_was_cleared_is_soon_let_go_of():
    loop, fired, _ = standing()
    wheel = Wheel(loop)
    for _ in range(1000):
        one = Deadline(wheel, lambda: fired.append("x"))
        one.set(3600.0)
        one.clear()
    del one
    assert len(wheel) == 1000
    loop.run_until(1005.0)
    assert len(wheel) == 0
    assert fired == []


def test_a_deadline_far_ahead_fires_at_its_time():
    loop, fired, deadline = standing()
    deadline("a").set(3600.0)
    loop.run_until(4599.0)
    assert fired == []
    loop.run_until(4601.0)
    assert len(fired) == 1
