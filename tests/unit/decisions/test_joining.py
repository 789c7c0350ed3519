from __future__ import annotations

from doorward.core.obligation import Budget, Cap, Limit, Mask, ReadOnly, Redact, Screen, StepUp
from doorward.decisions.joining import join


def test_nothing_joined_is_nothing() -> None:
    assert join([]) == ()


def test_names_are_united() -> None:
    given = [
        Mask(("a", "b")),
        Mask(("b", "c")),
        Redact(("pii",)),
        Redact(("secrets",)),
        Screen(("injection",)),
    ]
    assert join(given) == (Mask(("a", "b", "c")), Redact(("pii", "secrets")), Screen(("injection",)))


def test_the_smallest_cap_and_the_freshest_sign_in_rule() -> None:
    given = [
        Cap("max_tokens", 9),
        Cap("max_tokens", 5),
        StepUp("aal2"),
        StepUp("aal2", 900),
        StepUp("aal2", 60),
    ]
    assert join(given) == (Cap("max_tokens", 5), StepUp("aal2", 60))


def test_different_levels_of_sign_in_all_stay() -> None:
    assert join([StepUp("aal2", 60), StepUp("aal3")]) == (StepUp("aal2", 60), StepUp("aal3", None))


def test_each_limit_and_budget_counts_for_its_own_policy() -> None:
    one, two, budget = Limit("a", 5, 60), Limit("b", 9, 60), Budget("a", 10, "tokens", 60)
    assert join([one, two, one, budget, ReadOnly(), ReadOnly()]) == (one, two, budget, ReadOnly())
