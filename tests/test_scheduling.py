"""Many episodes over an engine with places: begun ones first, few open, lazily, in order."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import Counter
from collections.abc import Iterator

import pytest

from ccai_core.constitution import Principle
from ccai_core.episodes import Episode, GenerationConfig
from ccai_core.errors import EngineError
from ccai_core.journal import Journal, Recorded
from ccai_core.scheduling import run_episodes
from ccai_core.types import Call, Completion, Generate, Prompt

PRINCIPLES = [
    Principle(id=name, name=name, critique=f"Criticise: {name}.", revision=f"Revise: {name}.")
    for name in ("care", "candour")
]
CALLS = 1 + 2 * len(PRINCIPLES)


class Places:
    """A number of places; whoever finds none waits in order. Says what room there is."""

    model = "places@1"

    def __init__(self, places: int, turns=lambda call: 5) -> None:
        self._places, self._turns = places, turns
        self._free = asyncio.Semaphore(places)
        self.waiting = self.running = self.cancelled = 0
        self.calls: list[Call] = []

    @property
    def room(self) -> int:
        # Some more than there are places, as a fleet's client says it.
        return self._places + 4 - self.running - self.waiting

    async def generate(self, call: Call) -> Completion:
        self.calls.append(call)
        try:
            self.waiting += 1
            try:
                await self._free.acquire()
            finally:
                self.waiting -= 1
            self.running += 1
            try:
                for _ in range(self._turns(call)):
                    await asyncio.sleep(0)
            finally:
                self.running -= 1
                self._free.release()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return Completion(text=f"to {call.messages[-1].content}", finish_reason="stop")


class Noting(Places):
    """Knows how many episodes have calls that were not answered, or not even made."""

    most_open = 0

    async def generate(self, call: Call) -> Completion:
        self.left = self.__dict__.get("left", Counter())
        if self.left[number_of(call)] == 0:
            self.left[number_of(call)] = CALLS
        self.most_open = max(self.most_open, sum(count > 0 for count in self.left.values()))
        made = await super().generate(call)
        self.left[number_of(call)] -= 1
        return made


def asked(number: int) -> tuple[Prompt, int]:
    return Prompt(id=f"p{number}", text=f"Question {number}?", source="test", split="train"), 0


def number_of(call: Call) -> int:
    return int(call.messages[1].content.split()[1].rstrip("?"))


def run(engine: Generate, work: Iterator[tuple[Prompt, int]], **options) -> list[Episode]:
    principles = options.pop("principles", PRINCIPLES)

    async def main() -> list[Episode]:
        episodes = run_episodes(engine, work, principles, GenerationConfig(), **options)
        return [episode async for episode in episodes]

    return asyncio.run(main())


def test_what_is_begun_is_finished_before_more_is_begun() -> None:
    engine = Noting(8)
    run(engine, map(asked, range(100)))
    # Eight places and four that wait: breadth first would have begun a hundred.
    assert engine.most_open <= 8 + 4
    # Its critiques and revisions are asked for among the next few calls, not at the end.
    first = [place for place, call in enumerate(engine.calls) if number_of(call) == 0]
    assert max(first) < 8 * CALLS


def test_calls_on_their_way_through_a_journal_have_their_places_already(tmp_path) -> None:
    engine = Noting(8)
    with Journal.open(tmp_path / "calls.jsonl") as journal:
        run(Recorded(engine, journal), map(asked, range(100)))
    # While an answer is written its place is another's: so up to twice as many.
    assert engine.most_open <= 2 * 8 + 4


def test_the_places_are_full_as_long_as_there_is_work() -> None:
    lengths = random.Random(5)
    engine = Places(8, lambda call: lengths.randrange(20, 60))
    busy: list[int] = []

    async def main() -> None:
        async def look() -> None:
            while True:
                busy.append(engine.running)
                await asyncio.sleep(0)

        looking = asyncio.create_task(look())
        episodes = run_episodes(engine, map(asked, range(100)), PRINCIPLES, GenerationConfig())
        assert len([episode async for episode in episodes]) == 100
        looking.cancel()

    asyncio.run(main())
    # From the first call to the last, tail and all.
    assert sum(busy) / len(busy) > 0.95 * 8


def test_a_slow_first_episode_holds_up_no_more_than_so_many_after_it() -> None:
    slow = {"left": True}

    def turns(call: Call) -> int:
        return 3000 if number_of(call) == 0 and slow.pop("left", None) else 1

    taken: list[str] = []
    begun: set[int] = set()

    def note(call: Call) -> int:
        begun.add(number_of(call))
        if "left" not in slow and not taken:
            assert max(begun) <= 12
        return turns(call)

    async def main() -> None:
        episodes = run_episodes(
            Places(4, note), map(asked, range(60)), PRINCIPLES, GenerationConfig(), ahead=12
        )
        async for episode in episodes:
            taken.append(episode.prompt.id)

    asyncio.run(main())
    assert taken == [f"p{n}" for n in range(60)]


def test_which_principles_are_asked_may_depend_on_what_came_out_so_long_before() -> None:
    ahead, taken = 5, 0
    asked_with: dict[int, int] = {}

    def principles(index: int) -> list[Principle]:
        asked_with[index] = taken
        return PRINCIPLES[: 1 + index % 2]

    async def main() -> list[int]:
        nonlocal taken
        made = []
        episodes = run_episodes(
            Places(50), map(asked, range(40)), principles, GenerationConfig(), ahead=ahead
        )
        async for episode in episodes:
            taken += 1
            made.append(len(episode.steps))
        return made

    assert asyncio.run(main()) == [1, 2] * 20
    # None is opened before all that came `ahead` of it are known.
    assert all(seen >= index - ahead for index, seen in asked_with.items())


def test_an_endless_list_of_prompts_is_read_only_as_far_as_it_is_asked_for() -> None:
    read = itertools.count()
    work = (asked(next(read)) for _ in itertools.count())
    engine = Places(4)

    async def main() -> None:
        episodes = run_episodes(engine, work, PRINCIPLES, GenerationConfig(), ahead=20)
        async for episode in episodes:
            if episode.prompt.id == "p30":
                break
        await episodes.aclose()
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(main())
    assert next(read) <= 31 + 20
    assert engine.running == engine.waiting == 0


def test_leaving_gives_up_what_is_open() -> None:
    engine = Places(4, lambda call: 10**9 if number_of(call) > 8 else 1)

    async def main() -> None:
        episodes = run_episodes(engine, map(asked, range(50)), PRINCIPLES, GenerationConfig())
        async for episode in episodes:
            if episode.prompt.id == "p2":
                break
        await episodes.aclose()

    asyncio.run(main())
    assert engine.cancelled >= 1
    assert engine.running == engine.waiting == 0


def test_an_error_in_the_list_of_prompts_surfaces() -> None:
    def broken() -> Iterator[tuple[Prompt, int]]:
        yield asked(0)
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="disk is gone"):
        run(Places(4), broken())


def test_an_engine_whose_room_is_not_known_has_few_episodes_open() -> None:
    class Silent(Places):
        room = None

    begun: set[int] = set()
    done: set[int] = set()
    most = 0

    def note(call: Call) -> int:
        nonlocal most
        begun.add(number_of(call))
        most = max(most, len(begun - done))
        return 1

    run(
        Silent(1000, note), map(asked, range(200)),
        on_episode=lambda e: done.add(int(e.prompt.id[1:])),
    )  # fmt: skip
    assert most <= GenerationConfig().batch_size // 2


def test_an_error_of_the_engine_ends_it_though_the_list_is_endless() -> None:
    class Fails(Places):
        async def generate(self, call: Call) -> Completion:
            if number_of(call) == 7:
                raise EngineError("gone")
            return await super().generate(call)

    with pytest.raises(EngineError, match="gone"):
        run(Fails(4), map(asked, itertools.count()))
