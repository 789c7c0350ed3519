# ruff: noqa: E501 -- policies and cases stand on one line each, as in a table
from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from doorward.core.errors import DoorwardError, InvalidPolicyError
from doorward.core.feed import Bundle
from doorward.policies.workspace import Workspace, packaged_schema

FIRST = '@id("first") permit (principal, action, resource);'
SECOND = '@id("second") forbid (principal, action, resource);'


def ids(bundle: Bundle) -> list[str]:
    return [policy.id for policy in bundle.policies]


def test_a_directory_is_loaded_with_its_guardrails(tmp_path: Path) -> None:
    (tmp_path / "guardrails").mkdir()
    (tmp_path / "a.cedar").write_text(FIRST)
    (tmp_path / "guardrails" / "g.cedar").write_text(SECOND)
    bundle = Workspace(tmp_path).load()
    assert ids(bundle) == ["first"]
    assert [policy.id for policy in bundle.guardrails] == ["second"]
    assert bundle.schema == packaged_schema()


def test_its_own_schema_rules(tmp_path: Path) -> None:
    (tmp_path / "schema.cedarschema").write_text(packaged_schema().replace("trained_until", "skilled_until"))
    (tmp_path / "a.cedar").write_text(
        '@id("a") permit (principal is Doorward::User, action, resource) when { principal has skilled_until };'
    )
    assert "skilled_until" in Workspace(tmp_path).load().schema


def test_an_empty_directory_is_an_empty_bundle(tmp_path: Path) -> None:
    assert Workspace(tmp_path).load().policies == ()


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (
            lambda path: (path / "old").mkdir() or (path / "old" / "a.cedar").write_text(FIRST),
            "or in guardrails/",
        ),
        (lambda path: (path / "a.cedar").write_bytes(b"// ok\n\xff"), r"a\.cedar:2:1: the file is not UTF-8"),
        (lambda path: (path / "a.cedar").write_text(" " * (1024 * 1024 + 1)), "more than 1,048,576 bytes"),
        (lambda path: (path / "a.cedar").mkdir(), "cannot be read"),
        (lambda path: (path / "a.cedar").symlink_to("nowhere"), "cannot be read"),
    ],
    ids=["subdirectory", "not-utf8", "too-large", "directory", "dangling-link"],
)
def test_a_file_that_cannot_be_used_refuses_the_whole(
    tmp_path: Path, make: Callable[[Path], object], said: str
) -> None:
    make(tmp_path)
    with pytest.raises(InvalidPolicyError, match=said):
        Workspace(tmp_path).load()


def test_a_directory_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidPolicyError, match="is not a directory of policies"):
        Workspace(tmp_path / "none").load()


class Seen:
    """Collects what the watcher announces, and waits for the next of it."""

    def __init__(self) -> None:
        self.events: asyncio.Queue[Bundle | DoorwardError] = asyncio.Queue()

    async def next(self) -> Bundle | DoorwardError:
        return await asyncio.wait_for(self.events.get(), 30)


@asynccontextmanager
async def watching(workspace: Workspace) -> AsyncIterator[Seen]:
    seen = Seen()

    async def on_error(error: DoorwardError) -> None:
        await seen.events.put(error)

    task = asyncio.create_task(workspace.watch(seen.events.put_nowait, on_error))
    try:
        yield seen
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def announced(seen: Seen, change: Callable[[], object]) -> Bundle | DoorwardError:
    """Make a change until it is announced: the watcher may not have begun to look."""
    for _ in range(20):
        change()
        try:
            return await asyncio.wait_for(seen.events.get(), 2)
        except TimeoutError:
            continue
    raise AssertionError("nothing was announced")


async def test_a_change_is_announced_whole_and_a_broken_one_as_an_error(tmp_path: Path) -> None:
    file = tmp_path / "a.cedar"
    file.write_text(FIRST)
    workspace = Workspace(tmp_path)
    first = workspace.load()
    async with watching(workspace) as seen:
        changed = await announced(seen, lambda: file.write_text(FIRST + SECOND))
        assert isinstance(changed, Bundle)
        assert ids(changed) == ["first", "second"]

        file.write_text("permit (")
        broken = await seen.next()
        assert isinstance(broken, InvalidPolicyError)
        assert f"{file}:1:8" in broken.message
        assert workspace.refused

        replacement = tmp_path / "a.cedar.new"
        replacement.write_text(FIRST)
        replacement.replace(file)
        mended = await seen.next()
        assert isinstance(mended, Bundle)
        assert mended.digest == first.digest


async def test_going_back_to_the_set_in_force_ends_the_error(tmp_path: Path) -> None:
    file = tmp_path / "a.cedar"
    file.write_text(FIRST)
    workspace = Workspace(tmp_path)
    first = workspace.load()
    async with watching(workspace) as seen:
        broken = await announced(seen, lambda: file.write_text("permit ("))
        assert isinstance(broken, InvalidPolicyError)
        file.write_text(FIRST)
        again = await seen.next()
        assert isinstance(again, Bundle)
        assert again.digest == first.digest
        await asyncio.sleep(0)
        assert not workspace.refused


async def test_what_changed_before_watching_began_is_announced(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    workspace.load()
    (tmp_path / "a.cedar").write_text(FIRST)
    async with watching(workspace) as seen:
        changed = await seen.next()
        assert isinstance(changed, Bundle)
        assert ids(changed) == ["first"]


async def test_a_link_that_points_elsewhere_is_noticed(tmp_path: Path) -> None:
    for name, text in (("one", FIRST), ("two", SECOND)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.cedar").write_text(text)
    link = tmp_path / "policies"
    link.symlink_to("one")
    workspace = Workspace(link)
    workspace.load()
    async with watching(workspace) as seen:
        (tmp_path / "new").symlink_to("two")
        (tmp_path / "new").replace(link)
        changed = await seen.next()
        assert isinstance(changed, Bundle)
        assert ids(changed) == ["second"]


async def test_a_directory_that_goes_and_comes_back_is_followed(tmp_path: Path) -> None:
    policies = tmp_path / "policies"
    policies.mkdir()
    (policies / "a.cedar").write_text(FIRST)
    workspace = Workspace(policies)
    workspace.load()
    async with watching(workspace) as seen:
        policies.rename(tmp_path / "away")
        assert isinstance(await seen.next(), InvalidPolicyError)
        (tmp_path / "away").rename(policies)
        back = await seen.next()
        while not isinstance(back, Bundle):
            back = await seen.next()
        assert ids(back) == ["first"]


async def test_a_set_that_cannot_rule_is_told_and_tried_again_when_saved(tmp_path: Path) -> None:
    """What is known may not fit a new schema: whoever is to use a set may refuse it."""
    file = tmp_path / "a.cedar"
    file.write_text(FIRST)
    workspace = Workspace(tmp_path)
    workspace.load()
    seen, willing = Seen(), False

    async def on_bundle(bundle: Bundle) -> None:
        if not willing:
            raise InvalidPolicyError("3 of the people and assets do not fit the new schema")
        await seen.events.put(bundle)

    async def on_error(error: DoorwardError) -> None:
        await seen.events.put(error)

    task = asyncio.create_task(workspace.watch(on_bundle, on_error))
    try:
        refused = await announced(seen, lambda: file.write_text(FIRST + SECOND))
        assert isinstance(refused, InvalidPolicyError)
        assert "do not fit" in refused.message
        willing = True
        while not isinstance(mended := await announced(seen, file.touch), Bundle):
            continue
        assert ids(mended) == ["first", "second"]
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
