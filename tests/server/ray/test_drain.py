"""When a replica takes itself for one that is to go."""

import asyncio

import pytest

from gram.server.ray import drain


def ends(monkeypatch: pytest.MonkeyPatch, seen: list[bool], grace_seconds: float = 0) -> int:
    """How often `end` is called while a replica sees itself on the list (True) or off it in turn."""
    monkeypatch.setattr(drain, "_LOOK_SECONDS", 0)
    looks, ended = iter(seen), 0

    async def listed() -> bool:
        try:
            return next(looks)
        except StopIteration:
            raise asyncio.CancelledError from None

    def end() -> None:
        nonlocal ended
        ended += 1

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(drain.end_late(listed, grace_seconds, end))
    return ended


def test_only_who_was_on_the_list_and_is_off_it_ends_its_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ends(monkeypatch, [False, False, True, True]) == 0
    assert ends(monkeypatch, [False, True, False]) == 1
    assert ends(monkeypatch, [True, False, True, True]) == 1


def test_requests_that_come_late_are_ended_too_but_none_within_the_grace_period(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ends(monkeypatch, [True, *[False] * 5]) == 5
    assert ends(monkeypatch, [True, *[False] * 5], grace_seconds=60) == 0
