"""The fleet of replicas and the relays that it connects to, on real engines, without Ray."""

import asyncio
import contextlib
import shutil
from collections.abc import AsyncGenerator, Coroutine
from pathlib import Path
from typing import Any

from gram.models.config import WEIGHTS_FILE
from gram.models.tasks import TASKS
from gram.server.engine.messages import Ready, Submit, Trajectory
from gram.server.ray.fleet import ReplicaFleet
from gram.server.ray.messages import Place
from gram.server.ray.relay import Relay
from gram.server.settings import ServerSettings
from gram.server.supervision.job import Job
from gram.server.supervision.rotation import Rotation
from gram.server.supervision.supervisor import Listener

QUEENS = TASKS["nqueens-8"]
SECONDS = 120


def listener(ready: asyncio.Event) -> Listener:
    def on_ready(_: int, __: Ready) -> None:
        ready.set()

    return Listener(lambda *_: None, lambda *_: None, on_ready, lambda: None)


def settings(checkpoint: Path) -> ServerSettings:
    return ServerSettings(model=[checkpoint], slots=8, threads=1, device="cpu")


@contextlib.asynccontextmanager
async def relaying(name: str, checkpoint: Path) -> AsyncGenerator[tuple[Relay, Place]]:
    """A relay whose engine is ready."""
    ready = asyncio.Event()
    relay = Relay(name, settings(checkpoint), Rotation({checkpoint.name: checkpoint}), listener(ready))
    place = await relay.listen("127.0.0.1")
    running = asyncio.create_task(relay.run())
    try:
        await asyncio.wait_for(ready.wait(), SECONDS)
        yield relay, place
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


@contextlib.asynccontextmanager
async def fleet_of(checkpoint: Path, places: list[Place]) -> AsyncGenerator[ReplicaFleet]:
    """A fleet that finds what is in the list."""

    async def found() -> list[Place]:
        return [*places]

    ready = asyncio.Event()
    fleet = ReplicaFleet(settings(checkpoint), listener(ready), found)
    running = asyncio.create_task(fleet.run())
    try:
        await asyncio.wait_for(ready.wait(), SECONDS)
        yield fleet
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def submit(fleet: ReplicaFleet, count: int = 100) -> Job:
    puzzle = QUEENS.held_out[0].astype("uint8").tobytes()
    return fleet.open(lambda number: Submit(number, "nqueens-8", puzzle, count, 16, 1, 1.0))


async def collect(fleet: ReplicaFleet, job: Job) -> list[Trajectory]:
    """The trajectories in the order of their index, without the numbers of their requests."""
    came = [each async for each in fleet.trajectories(job) if isinstance(each, Trajectory)]
    fleet.close(job)
    return sorted((Trajectory(0, *each_of(each)) for each in came), key=lambda each: each.index)


def each_of(trajectory: Trajectory) -> tuple[Any, ...]:
    return trajectory.index, trajectory.steps, trajectory.score, trajectory.ending, trajectory.answer


def run(scene: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scene, SECONDS))


async def until(holds: Any) -> None:
    while not holds():
        await asyncio.sleep(0.01)


def test_replicas_come_are_drained_and_go_and_the_trajectories_stay_the_same(checkpoint: Path) -> None:
    async def scene() -> None:
        async with relaying("one", checkpoint) as (first, place):
            places = [place]
            async with fleet_of(checkpoint, places) as fleet:
                alone = await collect(fleet, submit(fleet))
                assert [trajectory.index for trajectory in alone] == [*range(100)]
                async with relaying("two", checkpoint) as (second, place):
                    places.append(place)
                    await until(lambda: sum(supervisor.ready for supervisor in fleet._supervisors) == 2)
                    job = submit(fleet)
                    assert len(job.shares) == 2
                    draining = asyncio.create_task(second.drain())
                    assert await collect(fleet, job) == alone
                    await draining
                    assert len(submit(fleet).shares) == 1, "it wants nothing new"
                    places.remove(place)
                job = submit(fleet)
                await first.drain()
                assert await collect(fleet, job) == alone

    run(scene())


def test_a_replica_that_comes_takes_over_a_part_of_what_runs(checkpoint: Path) -> None:
    async def scene() -> None:
        async with relaying("one", checkpoint) as (_, place):
            places = [place]
            async with fleet_of(checkpoint, places) as fleet:
                alone = await collect(fleet, submit(fleet, 20))
                job = submit(fleet, 100_000)
                async with relaying("two", checkpoint) as (_, place):
                    places.append(place)
                    await until(lambda: len(job.shares) == 2)
                    before, after = (share.submit for share in job.shares)
                    assert 0 == before.first_index < before.num_trajectories == after.first_index < after.num_trajectories
                    assert after.num_trajectories == 100_000
                    came: dict[int, Trajectory] = {}
                    async for each in fleet.trajectories(job):
                        assert isinstance(each, Trajectory)
                        assert each.index not in came
                        came[each.index] = each
                        if each.index >= after.first_index:
                            break
                    fleet.close(job)
                assert [each_of(came[index]) for index in range(20)] == [each_of(each) for each in alone]

    run(scene())


def test_a_replica_with_other_weights_gets_no_requests_until_it_is_alone(checkpoint: Path, tmp_path: Path) -> None:
    other = tmp_path / checkpoint.name
    shutil.copytree(checkpoint, other)
    weights = bytearray((other / WEIGHTS_FILE).read_bytes())
    weights[-1] ^= 1
    (other / WEIGHTS_FILE).write_bytes(weights)

    async def scene() -> None:
        async with relaying("other", other) as (_, strange):
            async with relaying("one", checkpoint) as (_, place):
                places = [place]
                async with fleet_of(checkpoint, places) as fleet:
                    places.append(strange)
                    await until(lambda: strange.replica in fleet._refused)
                    assert len(submit(fleet).shares) == 1
            async with fleet_of(checkpoint, [strange]) as fleet:
                assert len(await collect(fleet, submit(fleet, 4))) == 4

    run(scene())


def test_who_does_not_know_the_secret_is_not_served(checkpoint: Path) -> None:
    async def scene() -> None:
        async with relaying("one", checkpoint) as (_, place):
            reader, writer = await asyncio.open_connection(place.host, place.port)
            writer.write(bytes(len(place.token)))
            assert await reader.read() == b""
            writer.close()

    run(scene())
