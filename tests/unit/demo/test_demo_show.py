from __future__ import annotations

import pytest

from doorward.demo.show import Show
from doorward.demo.stage import NotHeldError, require

NASTY = "x\r\n\x1b[31mred\u202e\u2028[bold]markup[/bold]"


def test_off_a_terminal_each_beat_is_one_line_that_says_ok_or_failed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    show = Show(quiet=False)
    with show.doing("starting"):
        pass
    show.beat(1, "it holds", ["evidence"], held=True)
    show.beat(2, "it does not", [], held=False)
    assert capsys.readouterr().out.splitlines() == [
        "..    starting", "ok      1  it holds", "            evidence", "FAILED  2  it does not",
    ]  # fmt: skip


def test_what_a_system_answered_cannot_act_on_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    show = Show(quiet=False)
    show.line(NASTY)
    show.beat(1, NASTY, [NASTY], held=True)
    show.table(["a"], [[NASTY]])
    printed = capsys.readouterr().out
    assert not set(printed) & set("\r\x1b\u202e\u2028")
    assert printed.count("[bold]markup") == 4


def test_when_json_is_wanted_stdout_stays_empty(capsys: pytest.CaptureFixture[str]) -> None:
    Show(quiet=True).line("progress")
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "progress\n")


def test_a_claim_that_does_not_hold_is_raised_with_its_sentence() -> None:
    require(held=True, sentence="never shown")
    with pytest.raises(NotHeldError, match="seen instead"):
        require(held="", sentence="seen instead")
