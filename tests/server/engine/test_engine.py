"""The engine with the bundled weights: batch invariance, fairness, cancellation, and rows that are not finite."""

import random
import shutil
import socket
import threading
from collections.abc import Collection
from concurrent.futures import Future
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from benchmarks.baselines import BASELINES
from benchmarks.servers import PATIENCE
from gram.models.config import CheckpointError
from gram.models.perturbation import Latent, Perturbation
from gram.models.tasks import TASKS
from gram.models.tasks.symmetry import draws
from gram.models.temperature import Temperature
from gram.server.engine import process
from gram.server.engine.engine import Engine
from gram.server.engine.lane import Outcome
from gram.server.engine.messages import (
    NEVER_HALT,
    Cancel,
    Ending,
    FromEngine,
    LaneStats,
    Ping,
    Pong,
    Stepping,
    StepReport,
    Submit,
    Trajectory,
    Unframer,
    frame,
)
from gram.server.engine.pruning import Prune
from gram.server.engine.runner import Runner, Threads
from gram.server.engine.slots import SlotPool
from gram.server.sampling.collector import answer_of
from gram.server.settings import DeviceError, EngineSettings
from tests.support import make_engine

TASK = TASKS["nqueens-8"]


PRUNE = Prune(0.5, (2, 3, 4))


def submit(
    request: int,
    trajectories: int,
    *,
    seed: int = 1,
    temperature: Temperature = 1.0,
    max_steps: int = 16,
    puzzle: int = 0,
    prune: Prune | None = None,
    watch: int = 0,
    symmetries: bool = True,
    halt_threshold: float | None = None,
    perturbation: Perturbation | None = None,
) -> Submit:
    tokens = TASK.held_out[puzzle].astype(np.uint8).tobytes()
    return Submit(
        request,
        "nqueens-8",
        tokens,
        trajectories,
        max_steps,
        seed,
        temperature,
        symmetries,
        prune=prune,
        halt_threshold=halt_threshold,
        perturbation=perturbation,
        watch=watch,
    )


def step(engine: Engine) -> list[Trajectory]:
    """Make a step, and return the trajectories that ended with it."""
    return [trajectory for report in engine.step() for trajectory in report.finished]


def drain(engine: Engine) -> list[Trajectory]:
    """Step until the engine is idle, and return the trajectories in the order in which they ended."""
    return [trajectory for _ in iter(lambda: engine.idle, True) for trajectory in step(engine)]


def of_request(finished: list[Trajectory], request: int) -> list[Trajectory]:
    return sorted((t for t in finished if t.request == request), key=lambda t: t.index)


@pytest.fixture(scope="module")
def alone(checkpoint: Path) -> list[Trajectory]:
    """The trajectories of a request for 12, alone in its engine."""
    engine = make_engine(checkpoint, 32)
    engine.handle(submit(0, 12))
    return of_request(drain(engine), 0)


@pytest.fixture(scope="module")
def pruned_alone(checkpoint: Path) -> list[Trajectory]:
    """The trajectories of a request for 20 with pruning, alone in its engine."""
    engine = make_engine(checkpoint, 32)
    engine.handle(submit(0, 20, prune=PRUNE))
    return of_request(drain(engine), 0)


@pytest.mark.parametrize("slots", [1, 3, 8, 13, 64])
def test_the_slot_count_changes_no_bit(checkpoint: Path, alone: list[Trajectory], slots: int) -> None:
    engine = make_engine(checkpoint, slots)
    engine.handle(submit(0, 12))
    assert of_request(drain(engine), 0) == alone


def test_other_requests_in_flight_change_no_bit(checkpoint: Path, alone: list[Trajectory]) -> None:
    engine = make_engine(checkpoint, 24)
    crowd = random.Random(0)
    finished = []
    for request in range(1, 41):
        count, temperature, symmetries = crowd.randint(1, 4), crowd.choice([0.5, 1, 2]), crowd.choice([True, False])
        other = submit(request, count, seed=request, temperature=temperature, puzzle=request, symmetries=symmetries)
        engine.handle(other)
        if request == 20:
            engine.handle(submit(0, 12))
        if request >= 15:
            finished += step(engine)
    assert of_request(finished + drain(engine), 0) == alone


def test_each_trajectory_sees_an_image_and_answers_the_puzzle(checkpoint: Path, alone: list[Trajectory]) -> None:
    puzzle = TASK.held_out[0]
    engine = make_engine(checkpoint, 32)
    engine.handle(submit(0, 12, symmetries=False))
    without = of_request(drain(engine), 0)
    for trajectories in (alone, without):
        answers = [answer_of(TASK, puzzle, t.answer or b"") for t in trajectories]
        assert sum(TASK.check(puzzle, answer) for answer in answers) >= 11
    # Seven of eight images are another board, which the model answers in another way.
    assert sum(seen.score != as_it_is.score for seen, as_it_is in zip(alone, without, strict=True)) >= 6


def test_the_image_is_that_of_the_seed_and_the_index(checkpoint: Path, alone: list[Trajectory]) -> None:
    """A trajectory's answer is the preimage of its answer to the image, sent as a puzzle of its own."""
    puzzle = TASK.held_out[0][None]
    for trajectory in alone[:6]:
        seed, index = np.array([[1], [trajectory.index]], dtype=np.uint64)
        symmetry = TASK.symmetries(puzzle, draws(seed, index, TASK.num_draws))
        image = symmetry.image(puzzle)
        engine = make_engine(checkpoint, 8)
        written = Submit(
            0, "nqueens-8", image.astype(np.uint8).tobytes(), trajectory.index + 1, 16, 1, 1.0, first_index=trajectory.index
        )
        engine.handle(written)
        (own,) = drain(engine)
        assert (own.score, own.steps) == (trajectory.score, trajectory.steps)
        assert (
            symmetry.preimage(answer_of(TASK, image[0], own.answer or b"")[None])[0].astype(np.uint8).tobytes()
            == trajectory.answer
        )


def test_a_step_before_it_arrives_changes_no_bit(checkpoint: Path, alone: list[Trajectory]) -> None:
    engine = make_engine(checkpoint, 16)
    engine.handle(submit(1, 3, seed=2))
    finished = step(engine)
    engine.handle(submit(0, 12))
    assert of_request(finished + drain(engine), 0) == alone


def test_pruning_ends_some_trajectories_and_changes_no_bit_of_the_others(
    checkpoint: Path, pruned_alone: list[Trajectory]
) -> None:
    engine = make_engine(checkpoint, 32)
    engine.handle(submit(0, 20))
    whole = of_request(drain(engine), 0)
    for with_pruning, without in zip(pruned_alone, whole, strict=True):
        if with_pruning.ending is Ending.PRUNED:
            assert with_pruning.answer is None
            assert with_pruning.steps in PRUNE.steps
            assert with_pruning.steps < without.steps
        else:
            assert with_pruning == without
    assert 0 < sum(trajectory.ending is Ending.PRUNED for trajectory in pruned_alone) < 20


@pytest.mark.parametrize(("slots", "threads"), [(1, 1), (3, 2), (8, 1), (8, 2), (64, 2)])
def test_the_slot_count_prunes_no_other_trajectory(
    checkpoint: Path, pruned_alone: list[Trajectory], slots: int, threads: int
) -> None:
    engine = make_engine(checkpoint, slots, threads)
    engine.handle(submit(0, 20, prune=PRUNE))
    assert of_request(drain(engine), 0) == pruned_alone


def test_other_requests_in_flight_prune_no_other_trajectory(checkpoint: Path, pruned_alone: list[Trajectory]) -> None:
    engine = make_engine(checkpoint, 24)
    crowd = random.Random(0)
    finished = []
    for request in range(1, 31):
        prune = crowd.choice([None, PRUNE])
        engine.handle(submit(request, crowd.randint(1, 4), seed=request, temperature=2, puzzle=request, prune=prune))
        if request == 15:
            engine.handle(submit(0, 20, prune=PRUNE))
        if request >= 10:
            finished += step(engine)
    assert of_request(finished + drain(engine), 0) == pruned_alone


def test_trajectories_without_noise_that_see_the_same_puzzle_are_computed_once(checkpoint: Path) -> None:
    engine = make_engine(checkpoint, 8, threads=1)
    engine.handle(submit(0, 12, temperature=0.0, symmetries=False, watch=4))
    reports = [report for _ in iter(lambda: engine.idle, True) for report in engine.step()]
    once = of_request([trajectory for report in reports for trajectory in report.finished], 0)
    assert sum(report.rows for report in reports) == once[0].steps
    assert [sorted(each.index for each in report.steps) for report in reports] == [[0, 1, 2, 3]] * (len(reports) - 1) + [[]]
    for index in range(12):
        engine.handle(msgspec.structs.replace(submit(index, index + 1, temperature=0.0, symmetries=False), first_index=index))
    one_by_one = sorted(drain(engine), key=lambda each: each.index)
    assert once == [msgspec.structs.replace(each, request=0) for each in one_by_one]
    for other in (
        submit(1, 12, temperature=0.0),
        submit(1, 12, symmetries=False),
        submit(1, 12, temperature=[0.0, 1.0], symmetries=False),
    ):
        engine.handle(other)
        engine.start()
        (report,) = (outcome.report() for outcome in engine.finish())
        assert report.rows == 8
        engine.handle(Cancel(1))


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_the_threads_change_no_bit(checkpoint: Path, alone: list[Trajectory], threads: int) -> None:
    engine = Engine(EngineSettings(model=[checkpoint], slots=32, device="cpu", threads=threads))
    engine.handle(submit(0, 12))
    assert of_request(drain(engine), 0) == alone


def test_where_the_slots_do_not_fit_fewer_are_taken_unless_they_were_asked_for(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    room, original = 50, Runner.pool

    def pool(self: Runner, num_slots: int) -> SlotPool:
        if num_slots > room:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return original(self, num_slots)

    monkeypatch.setattr(Runner, "pool", pool)
    models = [checkpoint, checkpoint.with_name("sudoku-4x4")]
    engine = Engine(EngineSettings(model=models, device="cpu", threads=20))  # 320 slots, in two halves
    assert engine.placement.slots == 80
    assert {lane.num_slots for lane in engine.lanes.values()} == {80}
    assert "320 slots do not fit, trying 160" in caplog.text
    with pytest.raises(DeviceError, match="out of device memory: 101 slots do not fit; use fewer --slots"):
        Engine(EngineSettings(model=models, device="cpu", slots=101))
    room = 0
    with pytest.raises(DeviceError, match="1 slots do not fit"):
        Engine(EngineSettings(model=models, device="cpu"))


def test_what_a_step_brought_is_sent_while_the_next_one_runs() -> None:
    ours, theirs = socket.socketpair()
    ours.settimeout(PATIENCE)
    unframer: Unframer[StepReport] = Unframer(StepReport)
    events = []
    last = threading.Event()

    class ThreeSteps:
        started = 0
        idle = False
        busy: tuple[()] = ()
        has_suspects = False

        def start(self) -> None:
            if not self.idle:
                self.started += 1
                events.append(f"start {self.started}")

        def finish(self) -> list[Outcome]:
            if self.idle:
                return []
            if self.started > 1:
                events.extend(f"sent {report.rows}" for report in unframer.feed(ours.recv(1 << 20)))
            events.append(f"finish {self.started}")
            self.idle = self.started == 3
            if self.idle:
                last.set()
            return [Outcome(StepReport("model", [], {}, self.started, 8, 0.0, LaneStats(0, 0)))]

    serving = threading.Thread(target=process.serve, args=(theirs, ThreeSteps()))
    with ours, theirs:
        serving.start()
        assert last.wait(PATIENCE)
        assert [report.rows for report in unframer.feed(ours.recv(1 << 20))] == [3], (
            "the last report is sent though no step runs"
        )
        ours.shutdown(socket.SHUT_WR)
        serving.join(PATIENCE)
    assert not serving.is_alive()
    assert events == ["start 1", "finish 1", "start 2", "sent 1", "finish 2", "start 3", "sent 2", "finish 3"]


def test_with_a_suspect_one_model_steps_at_a_time_and_is_named_before(checkpoint: Path, alone: list[Trajectory]) -> None:
    engine = Engine(EngineSettings(model=[checkpoint, checkpoint.with_name("sudoku-4x4")], slots=8, device="cpu"))
    other = Submit(1, "sudoku-4x4", bytes(16), 40, 16, 0, 1.0)
    ours, theirs = socket.socketpair()
    ours.settimeout(PATIENCE)
    unframer: Unframer[FromEngine] = Unframer(FromEngine)
    serving = threading.Thread(target=process.serve, args=(theirs, engine))
    messages: list[FromEngine] = []
    with ours, theirs:
        for message in (other, msgspec.structs.replace(submit(0, 12), suspect=True), Ping()):
            ours.sendall(frame(message))
        serving.start()
        while sum(len(m.finished) for m in messages if isinstance(m, StepReport)) < 52:
            messages += unframer.feed(ours.recv(1 << 20))
        ours.shutdown(socket.SHUT_WR)
        serving.join(PATIENCE)
    pong = messages.pop(0)
    assert isinstance(pong, Pong)
    assert pong.lanes == {checkpoint.name: LaneStats(0, 12), "sudoku-4x4": LaneStats(0, 40)}
    assert (pong.memory_bytes or 0) > 2**20
    finished = [trajectory for m in messages if isinstance(m, StepReport) for trajectory in m.finished]
    assert of_request(finished, 0) == alone
    last = max(i for i, m in enumerate(messages) if isinstance(m, StepReport) and any(t.request == 0 for t in m.finished))
    for named, report in zip(messages[0 : last + 1 : 2], messages[1 : last + 2 : 2], strict=True):
        assert isinstance(named, Stepping)
        assert isinstance(report, StepReport)
        assert (named.model, named.requests) == (report.model, [0] if report.model == checkpoint.name else [1])
    alone_again = [m for m in messages[last + 1 :] if isinstance(m, Stepping)]
    assert len(alone_again) <= 3, "the round of models and halves in which the suspect ended is completed, and no other follows"
    assert len(messages) - last > 5


def no_part(*_: object) -> Future[None]:
    """A part of a step that fails."""
    part: Future[None] = Future()
    part.set_exception(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1000 bytes."))
    return part


@pytest.mark.parametrize("cut_off", ["the first upload", "the last upload", "a part", "a release"])
def test_a_step_that_the_memory_does_not_hold_ends_the_requests_in_the_slots_and_nothing_else(
    checkpoint: Path, alone: list[Trajectory], monkeypatch: pytest.MonkeyPatch, cut_off: str
) -> None:
    engine = Engine(EngineSettings(model=[checkpoint], slots=12, device="cpu", threads=2))
    engine.handle(submit(1, 6, seed=2, puzzle=1))
    engine.handle(submit(2, 3, seed=3, temperature=2, puzzle=2))
    for _ in range(2):
        engine.step()
    engine.handle(submit(3, 12, seed=4, max_steps=1, puzzle=-1))  # no image of the puzzles that are in the pool
    engine.handle(submit(0, 12))
    uploads: list[object] = []
    upload, release = SlotPool._upload, SlotPool.release

    def no_upload(pool: SlotPool, numbers: NDArray[np.int64]) -> torch.Tensor:
        uploads.append(numbers)
        if len(uploads) == (1 if cut_off == "the first upload" else 2):
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return upload(pool, numbers)

    def no_release(pool: SlotPool, slots: Collection[int]) -> None:
        release(pool, [*slots][:1])
        raise torch.OutOfMemoryError("CUDA out of memory.")

    with monkeypatch.context() as short:
        if cut_off == "a part":
            short.setattr(Threads, "submit", no_part)
        elif cut_off == "a release":
            short.setattr(SlotPool, "release", no_release)
        else:
            short.setattr(SlotPool, "_upload", no_upload)
        engine.start()
        reports = [outcome.report() for outcome in engine.drain()]
    assert reports[0].finished == []
    assert reports[0].rows == 0
    ended = {request for report in reports for request in report.out_of_memory}
    assert {1, 2, 3} & ended
    if 0 in ended:
        engine.handle(submit(0, 12))
    others = [each for report in reports for each in report.finished if each.request not in ended]
    finished = others + drain(engine)
    assert of_request(finished, 0) == alone
    assert {trajectory.request for trajectory in finished} == {0, 1, 2, 3} - (ended - {0})
    (lane,) = engine.lanes.values()
    assert (lane.submitted, lane.suspects, {half.pool.live for half in lane.halves}) == ({}, set(), {0})


def test_an_engine_without_a_process_says_that_the_memory_does_not_hold_a_step(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make_engine(checkpoint, 8, threads=2)
    monkeypatch.setattr(Threads, "submit", no_part)
    engine.handle(submit(0, 12))
    with pytest.raises(DeviceError, match="out of device memory while running nqueens-8; use fewer --slots"):
        engine.step()


@pytest.mark.parametrize("change", ["a bit of the weights", "half of the weights", "no weights", "the configuration"])
def test_a_model_that_was_served_and_whose_files_have_changed_is_left_out(
    checkpoint: Path, tmp_path: Path, change: str
) -> None:
    folder = shutil.copytree(checkpoint, tmp_path / "changed")
    settings = EngineSettings(model=[checkpoint, folder], slots=8, device="cpu")
    known = Engine(settings).fingerprints
    assert len(set(known)) == 2
    assert Engine(settings, known).missing == {}
    weights = bytearray((folder / "model.safetensors").read_bytes())
    if change == "no weights":
        (folder / "model.safetensors").unlink()
    elif change == "the configuration":
        (folder / "config.json").write_text((folder / "config.json").read_text() + " ")
    else:
        weights[-3] ^= 1
        (folder / "model.safetensors").write_bytes(weights[: len(weights) // 2] if change.startswith("half") else weights)
    engine = Engine(settings, known)
    assert [*engine.lanes] == [*engine.fingerprints] == [checkpoint.name]
    assert str(folder) in engine.missing["changed"]
    if change.startswith(("half", "no")):
        with pytest.raises(CheckpointError, match=str(folder)):
            Engine(settings)


def test_a_model_that_is_loaded_into_an_empty_engine_has_all_its_slots(checkpoint: Path) -> None:
    settings = EngineSettings(model=[checkpoint], slots=8, device="cpu", threads=2)
    engine = Engine(settings, known={checkpoint.name: "of other files"})
    assert not engine.lanes
    engine.load(checkpoint)
    engine.handle(submit(0, 100))
    assert sum(report.rows for report in engine.step()) == 8


def test_a_request_resumed_in_the_middle_changes_no_bit(checkpoint: Path, alone: list[Trajectory]) -> None:
    engine = make_engine(checkpoint, 32)
    engine.handle(msgspec.structs.replace(submit(0, 12), first_index=5))
    assert of_request(drain(engine), 0) == alone[5:]


def test_seeds_and_trajectories_differ(checkpoint: Path) -> None:
    engine = make_engine(checkpoint, 32)
    engine.handle(submit(0, 8, seed=1))
    engine.handle(submit(1, 8, seed=2**40 + 1))
    finished = drain(engine)
    scores = {trajectory.score for trajectory in finished}
    assert len(scores) == 16


def test_without_temperature_all_trajectories_are_one(checkpoint: Path) -> None:
    engine = make_engine(checkpoint, 8)
    engine.handle(submit(0, 5, temperature=0.0, symmetries=False))
    assert len({(t.steps, t.score, t.answer) for t in drain(engine)}) == 1


def test_each_step_has_its_temperature(checkpoint: Path) -> None:
    engine = make_engine(checkpoint, 32)
    temperatures: list[Temperature] = [2.0, [2.0], [2.0, 2.0, 2.0], [0.0, 2.0], [2.0, 0.0]]
    for request, temperature in enumerate(temperatures):
        engine.handle(submit(request, 6, temperature=temperature, max_steps=1, symmetries=False))
        engine.handle(submit(10 + request, 6, temperature=temperature, max_steps=3, symmetries=False))
    finished = drain(engine)
    once, thrice = (
        [[t.score for t in of_request(finished, first + request)] for request in range(len(temperatures))] for first in (0, 10)
    )
    assert once[0] == once[1] == once[2] == once[4]
    assert len(set(once[3])) == 1, "without noise all are alike"
    assert thrice[0] == thrice[1] == thrice[2]
    assert len({*map(tuple, thrice)}) == 3
    assert len(set(thrice[3])) > 1


def test_no_trajectory_halts_before_the_end_of_its_schedule(checkpoint: Path) -> None:
    engine = make_engine(checkpoint, 32)
    engine.handle(submit(0, 12))
    engine.handle(submit(1, 12, temperature=[1.0] * 6))
    finished = drain(engine)
    free, held = (of_request(finished, request) for request in range(2))
    assert min(t.steps for t in free) < 6 <= min(t.steps for t in held)
    late = [t for t in free if t.steps >= 6]
    assert late == [msgspec.structs.replace(held[t.index], request=0) for t in late]
    assert late


def test_a_request_has_its_own_threshold_for_halting(checkpoint: Path) -> None:
    engine = make_engine(checkpoint, 24)
    thresholds = [None, 0.5, NEVER_HALT, 0.01]
    for request, threshold in enumerate(thresholds):
        engine.handle(submit(request, 8, max_steps=9, halt_threshold=threshold))
    finished = drain(engine)
    own, half, never, early = (of_request(finished, request) for request in range(len(thresholds)))
    assert [msgspec.structs.replace(t, request=1) for t in own] == half, "the threshold of this checkpoint is a half"
    assert {(t.steps, t.ending) for t in never} == {(9, Ending.DEPTH)}
    for earlier, later in ((early, half), (half, never)):
        assert all(a.steps <= b.steps for a, b in zip(earlier, later, strict=True))
        assert sum(t.steps for t in earlier) < sum(t.steps for t in later)


@pytest.mark.parametrize("latent", ["low", "high"])
def test_noise_before_each_step_makes_a_sampler_of_a_deterministic_model(latent: Latent) -> None:
    """And it is that of the seed, the index and the step alone: bit for bit, whatever else runs."""
    trm = BASELINES / "nqueens-8-trm"
    plain = msgspec.structs.replace(submit(0, 8, symmetries=False), model=trm.name)
    noisy = msgspec.structs.replace(plain, perturbation=Perturbation(2.0, latent))
    engine = make_engine(trm, 16)
    engine.handle(noisy)
    alone = of_request(drain(engine), 0)
    assert len({t.score for t in alone}) == 8

    engine = make_engine(trm, 5)
    finished = []
    for request in range(1, 12):
        other = submit(request, 3, seed=request, puzzle=request, symmetries=request % 2 == 0)
        engine.handle(msgspec.structs.replace(other, model=trm.name))
        if request == 6:
            engine.handle(noisy)
        finished += step(engine)
    assert of_request(finished + drain(engine), 0) == alone

    engine.handle(plain)
    assert len({t.score for t in drain(engine)}) == 1


def test_a_small_request_does_not_wait_for_a_large_one(checkpoint: Path) -> None:
    engine = make_engine(checkpoint, 8)
    engine.handle(submit(0, 1000, max_steps=4))
    engine.step()
    engine.handle(submit(1, 1, max_steps=4))
    for _ in range(4 + 4 + 1):  # a slot frees, the trajectory runs
        if any(t.request == 1 for t in step(engine)):
            break
    else:
        pytest.fail("the small request was not served beside the large one")
    engine.handle(Cancel(0))
    assert engine.idle


@pytest.mark.parametrize("threads", [1, 2])
def test_cancelling_frees_the_slots_before_the_next_step(checkpoint: Path, threads: int) -> None:
    engine = make_engine(checkpoint, 8, threads)
    engine.handle(submit(0, 1000))
    engine.step()
    engine.handle(Cancel(0))
    engine.handle(submit(1, 8, seed=3))
    reports = engine.step()
    assert sum(report.rows for report in reports) == 8
    assert all(t.request == 1 for t in [*(t for report in reports for t in report.finished), *drain(engine)])


def test_cancelling_in_the_middle_of_a_step_frees_the_slots_after_it(checkpoint: Path, alone: list[Trajectory]) -> None:
    engine = make_engine(checkpoint, 9, threads=2)
    engine.handle(submit(1, 1000, seed=2))
    for number in range(2, 5):  # one half runs while the other is cancelled, then the other way about
        engine.start()
        for outcome in engine.finish():
            outcome.report()
        engine.handle(submit(number, 1000, seed=number))
        engine.handle(Cancel(number - 1))
    engine.handle(Cancel(4))
    engine.handle(submit(0, 12))
    finished = drain(engine)
    assert {trajectory.request for trajectory in finished} == {0}
    assert of_request(finished, 0) == alone


def test_memory_is_that_of_the_slots_whatever_the_number_of_trajectories(checkpoint: Path) -> None:
    engine = make_engine(checkpoint, 8)
    (lane,) = engine.lanes.values()
    before = [tensor.data_ptr() for half in lane.halves for tensor in half.pool.state]
    engine.handle(submit(0, 10**9))
    reports = engine.step()
    assert sum(report.rows for report in reports) == sum(report.slots for report in reports) == 8
    assert reports[-1].stats.waiting > 10**8
    assert [tensor.data_ptr() for half in lane.halves for tensor in half.pool.state] == before
    engine.handle(Cancel(0))
    assert engine.idle


def test_a_row_that_turns_non_finite_is_dropped_and_its_neighbours_are_not_touched(
    checkpoint: Path, alone: list[Trajectory]
) -> None:
    engine = make_engine(checkpoint, 32)
    engine.handle(submit(1, 3, temperature=float("inf")))
    engine.handle(submit(0, 12))
    finished = drain(engine)
    assert [(t.ending, t.answer, t.steps) for t in of_request(finished, 1)] == [(Ending.NOT_FINITE, None, 1)] * 3
    assert of_request(finished, 0) == alone


def test_the_reports_add_up(checkpoint: Path) -> None:
    engine = make_engine(checkpoint, 8)
    engine.handle(submit(0, 20))
    engine.handle(submit(1, 5, seed=2))
    reports = [report for _ in iter(lambda: engine.idle, True) for report in engine.step()]
    assert sum(report.rows for report in reports) == sum(t.steps for report in reports for t in report.finished)
    started = [request for report in reports for request in report.started]
    assert sorted(started) == [0, 1]
    assert all(seconds >= 0 for report in reports for seconds in report.started.values())
    assert reports[-1].stats.live == reports[-1].stats.waiting == 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU")
@pytest.mark.parametrize("slots", [1, 64, 200, 512])
def test_neither_slots_nor_other_requests_change_a_bit_on_a_gpu(checkpoint: Path, slots: int) -> None:
    alone = Engine(EngineSettings(model=[checkpoint], slots=64, device="cuda"))
    alone.handle(submit(0, 100))
    crowded = Engine(EngineSettings(model=[checkpoint], slots=slots, device="cuda"))
    for request in range(1, 6):
        crowded.handle(submit(request, 40, seed=request, temperature=0.5 * request, puzzle=request))
    finished = step(crowded)
    crowded.handle(submit(0, 100))
    assert of_request(finished + drain(crowded), 0) == of_request(drain(alone), 0)


def test_of_a_request_that_watches_the_first_trajectories_are_shown_after_each_step(
    checkpoint: Path, alone: list[Trajectory]
) -> None:
    engine = make_engine(checkpoint, 32)
    engine.handle(submit(0, 12, watch=5))
    engine.handle(submit(1, 12, seed=2))
    finished: list[Trajectory] = []
    shown: list[tuple[int, int]] = []
    while not engine.idle:
        for report in engine.step():
            finished += report.finished
            assert {show.request for show in report.steps} <= {0}
            shown += [(show.index, show.steps) for show in report.steps]
    assert of_request(finished, 0) == alone
    assert sorted(shown) == [(t.index, steps) for t in alone if t.index < 5 for steps in range(1, t.steps)]
    assert not engine.lanes["nqueens-8"].watched
