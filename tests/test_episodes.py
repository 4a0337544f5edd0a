"""Episodes: their shape, their order, what stops them, and resuming to the very same texts."""

from __future__ import annotations

import asyncio
import random
from itertools import accumulate
from pathlib import Path

import pytest

from ccai_core.constitution import FewShot, Principle
from ccai_core.episodes import Episode, GenerationConfig, opening, run_episode
from ccai_core.errors import EngineError
from ccai_core.journal import Journal, Recorded
from ccai_core.scheduling import run_episodes
from ccai_core.types import Call, Completion, FinishReason, Prompt
from tests.fake_engine import BatchedFake

PRINCIPLES = [
    Principle(id=name, name=name, critique=f"Criticise: {name}.", revision=f"Revise: {name}.")
    for name in ("care", "candour")
]
CONFIG = GenerationConfig()
WORK = [
    (Prompt(id=f"p{i}", text=f"Question {i}?", source="test", split="train"), 0) for i in range(300)
]


class Scripted:
    """Answers by a function of the call, each after a number of loop turns."""

    model = "scripted@1"

    def __init__(self, answer, turns=lambda call: 1) -> None:
        self._answer, self._turns = answer, turns
        self.calls: list[Call] = []
        self.cancelled = 0

    async def generate(self, call: Call) -> Completion:
        self.calls.append(call)
        try:
            for _ in range(self._turns(call)):
                await asyncio.sleep(0)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return self._answer(call)


def said(call: Call) -> Completion:
    return Completion(text=f"Answer to {call.messages[-1].content}", finish_reason="stop")


def stage(call: Call) -> str:
    return {2: "response", 4: "critique", 6: "revision"}[len(call.messages)]


async def collect(engine, work=WORK[:5], config=CONFIG, **options) -> list[Episode]:
    return [e async for e in run_episodes(engine, work, PRINCIPLES, config, **options)]


# --- one episode ----------------------------------------------------------------------------------


def test_everything_shared_comes_first_and_the_principles_words_last() -> None:
    engine = Scripted(said)
    episode = asyncio.run(run_episode(engine, WORK[0][0], PRINCIPLES, CONFIG))
    assert [stage(call) for call in engine.calls] == [
        "response", "critique", "critique", "revision", "revision",
    ]  # fmt: skip
    response, critique, _, revision, _ = engine.calls
    assert critique.messages[:2] == response.messages
    assert critique.messages[2].content == "Answer to Question 0?"
    assert critique.messages[3].content == "Criticise: care."
    assert revision.messages[:4] == critique.messages
    assert [m.role for m in revision.messages[4:]] == ["assistant", "user"]
    # The question comes again, last: small models have lost it by then.
    assert revision.messages[5].content == "Revise: care.\n\nMy question was: Question 0?"
    assert [s.principle for s in episode.steps] == ["care", "candour"]
    assert episode.calls == 5


def test_each_stage_has_its_own_token_limit_and_one_seed() -> None:
    engine = Scripted(said)
    config = GenerationConfig(response_tokens=10, critique_tokens=20, revision_tokens=30)
    asyncio.run(run_episode(engine, WORK[0][0], PRINCIPLES[:1], config))
    assert [c.sampling.max_new_tokens for c in engine.calls] == [10, 20, 30]
    assert len({c.sampling.seed for c in engine.calls}) == 1


def test_another_pass_over_the_prompts_has_another_seed() -> None:
    engine = Scripted(said)
    asyncio.run(run_episode(engine, WORK[0][0], [], CONFIG, sample=0))
    asyncio.run(run_episode(engine, WORK[0][0], [], CONFIG, sample=1))
    assert engine.calls[0].sampling.seed != engine.calls[1].sampling.seed


def test_few_shot_episodes_stand_before_the_prompt() -> None:
    shot = FewShot(prompt="P", response="R", critique="C", revision="V")
    turns = opening(WORK[0][0], CONFIG, [shot])
    assert [t.role for t in turns] == ["system"] + ["user", "assistant"] * 3 + ["user"]
    assert [t.content for t in turns if t.role == "assistant"] == ["R", "C", "V"]
    assert turns[-1].content == "Question 0?"


@pytest.mark.parametrize("reason", ["length", "error", "filtered", "stop"])
def test_nothing_is_built_on_an_unusable_response(reason: FinishReason) -> None:
    text = "" if reason in {"stop", "error"} else "A text that was cut"
    engine = Scripted(lambda call: Completion(text=text, finish_reason=reason))
    episode = asyncio.run(run_episode(engine, WORK[0][0], PRINCIPLES, CONFIG))
    assert episode.steps == ()
    assert episode.calls == 1


def test_nothing_is_built_on_an_unusable_critique() -> None:
    def answer(call: Call) -> Completion:
        cut = stage(call) == "critique" and call.messages[-1].content == "Criticise: care."
        return said(call).model_copy(update={"finish_reason": "length" if cut else "stop"})

    episode = asyncio.run(run_episode(Scripted(answer), WORK[0][0], PRINCIPLES, CONFIG))
    assert [step.revision is None for step in episode.steps] == [True, False]
    assert episode.calls == 4


def test_tokens_are_those_of_all_completions() -> None:
    engine = Scripted(lambda c: said(c).model_copy(update={"completion_tokens": len(c.messages)}))
    episode = asyncio.run(run_episode(engine, WORK[0][0], PRINCIPLES, CONFIG))
    assert episode.tokens == 2 + 2 * (4 + 6)


def test_every_completion_is_found_again_by_its_call_key() -> None:
    engine = Scripted(said)
    episode = asyncio.run(run_episode(engine, WORK[0][0], PRINCIPLES[:1], CONFIG))
    keys = [episode.key, episode.steps[0].critique_key, episode.steps[0].revision_key]
    assert keys == [call.key("scripted@1") for call in engine.calls]


# --- many -----------------------------------------------------------------------------------------


def test_episodes_come_in_the_order_given_whatever_finishes_first() -> None:
    slow_first = Scripted(said, lambda call: 50 if "Question 0" in call.messages[1].content else 1)
    finished: list[str] = []
    episodes = asyncio.run(collect(slow_first, on_episode=lambda e: finished.append(e.prompt.id)))
    assert [e.prompt.id for e in episodes] == ["p0", "p1", "p2", "p3", "p4"]
    assert sorted(finished) == ["p0", "p1", "p2", "p3", "p4"]
    assert finished[-1] == "p0"


def test_open_episodes_are_bounded() -> None:
    open_now, most = set(), 0

    def answer(call: Call) -> Completion:
        nonlocal most
        open_now.add(call.messages[1].content)
        most = max(most, len(open_now))
        return said(call)

    config = GenerationConfig(batch_size=2)
    engine = Scripted(answer)
    asyncio.run(
        collect(engine, WORK[:20], config, on_episode=lambda e: open_now.discard(e.prompt.text))
    )
    assert most == 4


@pytest.mark.parametrize("error", [EngineError("gone"), OSError("disk"), ZeroDivisionError()])
def test_an_error_in_one_episode_ends_the_others_at_once(error: Exception) -> None:
    def answer(call: Call) -> Completion:
        if "Question 3" in call.messages[1].content:
            raise error
        return said(call)

    # Episode 0 would come first and never ends: the error must not wait for it.
    endless = Scripted(answer, lambda c: 10**9 if "Question 0" in c.messages[1].content else 1)

    async def main() -> None:
        with pytest.raises(type(error)):
            await asyncio.wait_for(collect(endless), 5)
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(main())
    assert endless.cancelled >= 1


def test_an_error_of_the_callback_surfaces() -> None:
    def broken(episode: Episode) -> None:
        raise OSError("no space for progress")

    with pytest.raises(OSError, match="no space"):
        asyncio.run(collect(Scripted(said), on_episode=broken))


def test_cancelling_the_consumer_cancels_every_call() -> None:
    engine = Scripted(said, lambda call: 10**9)

    async def main() -> None:
        task = asyncio.create_task(collect(engine))
        for _ in range(20):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(main())
    assert engine.cancelled == 5


# --- killed and continued -------------------------------------------------------------------------

# Few slots and many episodes: long chains of replays, which an engine must wait for.
BATCH = 4


def run_with(path: Path, work=WORK) -> tuple[list[Episode], BatchedFake, Recorded]:
    async def main() -> tuple[list[Episode], BatchedFake, Recorded]:
        with Journal.open(path) as journal:
            async with BatchedFake(BATCH) as fake:
                recorded = Recorded(fake, journal)
                # More episodes open than a batch takes: what waits is chosen from.
                config = GenerationConfig(batch_size=4 * BATCH)
                return await collect(recorded, work, config), fake, recorded

    return asyncio.run(main())


class Interrupted:
    """One uninterrupted run, and what must come of it when its journal is cut anywhere."""

    def __init__(self, folder: Path, work=WORK) -> None:
        self.folder, self.work = folder, work
        self.episodes, engine, _ = run_with(folder / "whole.jsonl", work)
        self.keys = engine.keys
        self.data = (folder / "whole.jsonl").read_bytes()
        self.ends = [0] + [i + 1 for i, byte in enumerate(self.data) if byte == ord("\n")]
        self.boundaries = [0, *accumulate(len(batch) for batch in engine.batches)]
        assert len(self.keys) == len(set(self.keys)) == len(self.ends) - 1

    def cut_at(self, size: int) -> tuple[list[Episode], list[str]]:
        path = self.folder / f"cut-{size}.jsonl"
        path.write_bytes(self.data[:size])
        episodes, engine, _ = run_with(path, self.work)
        path.unlink()
        return episodes, engine.keys

    def check(self, size: int) -> None:
        episodes, asked = self.cut_at(size)
        assert episodes == self.episodes, f"cut at byte {size}"
        # Only what a torn batch held is asked a second time.
        whole_lines = sum(end <= size for end in self.ends) - 1
        safe = max(n for n in self.boundaries if n <= whole_lines)
        assert asked == self.keys[safe:], f"cut at byte {size}"


@pytest.fixture
def _no_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.fsync", lambda descriptor: None)


@pytest.mark.usefixtures("_no_fsync")
def test_killed_at_any_point_it_continues_to_the_same_texts(tmp_path: Path) -> None:
    run = Interrupted(tmp_path)
    assert len(run.keys) > 1000
    chance = random.Random(7)
    for boundary in chance.sample(run.boundaries, 8):
        run.check(run.ends[boundary])
    for _ in range(8):
        run.check(chance.randrange(len(run.data)))


@pytest.mark.usefixtures("_no_fsync")
def test_killed_at_every_batch_of_a_short_run(tmp_path: Path) -> None:
    run = Interrupted(tmp_path, WORK[:30])
    for boundary in run.boundaries:
        run.check(run.ends[boundary])


@pytest.mark.slow
@pytest.mark.usefixtures("_no_fsync")
def test_killed_at_every_batch_of_a_long_run(tmp_path: Path) -> None:
    run = Interrupted(tmp_path)
    for boundary in run.boundaries:
        run.check(run.ends[boundary])


@pytest.mark.usefixtures("_no_fsync")
def test_without_word_of_replays_a_batch_is_formed_too_early(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shows that the tests above have teeth."""
    run = Interrupted(tmp_path)
    monkeypatch.setattr(BatchedFake, "stir", lambda self: None)
    late = run.boundaries[len(run.boundaries) * 3 // 4 :][:5]
    assert any(run.cut_at(run.ends[n])[0] != run.episodes for n in late)


def test_a_finished_run_is_replayed_without_a_call(tmp_path: Path) -> None:
    whole, _, _ = run_with(tmp_path / "calls.jsonl", WORK[:40])
    again, fake, recorded = run_with(tmp_path / "calls.jsonl", WORK[:40])
    assert again == whole
    assert fake.batches == []
    assert recorded.asked == 0
    assert recorded.replayed == sum(e.calls for e in whole)
