"""Pairs from episodes: counts that add up, balance over principles, the same pairs every time."""

from __future__ import annotations

import asyncio
import json
import math
import random
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ccai_core.constitution import Constitution, Principle
from ccai_core.episodes import GenerationConfig
from ccai_core.errors import ConfigError, DataError, EngineError
from ccai_core.journal import Journal, Recorded
from ccai_core.preferences import Funnel, PairSet, PreferenceConfig, make_pairs, write_pairs
from ccai_core.quality import QualityConfig
from ccai_core.quality_measures import words
from ccai_core.types import Call, Completion, Message, Prompt, fingerprint
from tests.fake_engine import BatchedFake

IDS = ("care", "candour", "calm")
CONSTITUTION = Constitution(
    name="Test",
    principles=tuple(
        Principle(id=p, name=p, critique=f"Criticise by {p}.", revision=f"Revise by {p}.")
        for p in IDS
    ),
)
CONFIG = PreferenceConfig(generation=GenerationConfig(batch_size=8))
WORDS = (
    "friend patience evening listen kindly garden honest trouble answer morning river worry letter "
    "gentle promise window brother silence courage bread distance winter careful market "
    "lantern harbour"
).split()


def prompts(count: int, **fields) -> list[Prompt]:
    return [
        Prompt(**{"id": f"p{i}", "text": f"How do I help friend {i}?", "source": "test",
                  "split": "train"} | fields)
        for i in range(count)
    ]  # fmt: skip


def prose(seed: str) -> str:
    return " ".join(random.Random(seed).sample(WORDS, 20)) + " friend."


class Scripted:
    """Answers by a function of (stage, principle, digest); yields to others a varying while."""

    model = "scripted@1"

    def __init__(self, outcome=lambda stage, principle, digest: "stop", jitter: int = 0) -> None:
        self._outcome, self._jitter = outcome, random.Random(jitter)
        self.keys: list[str] = []

    async def generate(self, call: Call) -> Completion:
        key = call.key(self.model)
        self.keys.append(key)
        for _ in range(self._jitter.randrange(4)):
            await asyncio.sleep(0)
        stage = {2: "response", 4: "critique", 6: "revision"}[len(call.messages)]
        principle = next((p for p in IDS if f"by {p}" in call.messages[-1].content), "")
        what = self._outcome(stage, principle, int(fingerprint([stage, key], 8), 16))
        if what == "short":
            return Completion(text="Too few words.", finish_reason="stop", completion_tokens=3)
        if what == "silent":
            return Completion(text=" ", finish_reason="stop", completion_tokens=1)
        text = "" if what == "error" else prose(key)
        return Completion(text=text, finish_reason=what, completion_tokens=20)


def make(engine, count: int = 40, max_pairs: int = 30, config=CONFIG, **options) -> PairSet:
    return asyncio.run(
        make_pairs(engine, prompts(count), CONSTITUTION, config, max_pairs, **options)
    )


def by_chance(weights: dict[str, int]):
    outcomes = [what for what, n in weights.items() for _ in range(n)]
    return lambda stage, principle, digest: outcomes[digest % len(outcomes)]


# --- what is made ---------------------------------------------------------------------------------


def test_a_pair_holds_question_both_answers_and_where_they_came_from() -> None:
    engine = Scripted()
    made = make(engine)
    pair = made.pairs[0]
    assert [(m.role, m.content) for m in pair.prompt] == [
        ("user", f"How do I help friend {pair.prompt_id[1:]}?")
    ]
    keys = pair.provenance
    assert keys["model"] == "scripted@1"
    assert keys["constitution"] == CONSTITUTION.fingerprint
    # Every text is the answer to the call whose key stands in the provenance.
    assert pair.rejected[0].content == prose(keys["response_call"])
    assert pair.critique == prose(keys["critique_call"])
    assert pair.chosen[0].content == prose(keys["revision_call"])
    assert {keys[f"{s}_call"] for s in ("response", "critique", "revision")} <= set(engine.keys)


def test_as_many_as_asked_for_are_made_the_same_for_each_principle() -> None:
    made = make(Scripted(), max_pairs=30)
    assert Counter(p.principle for p in made.pairs) == dict.fromkeys(IDS, 10)
    assert made.funnel.pairs == 30
    assert made.funnel.shortfall == 0


@pytest.mark.parametrize("wanted", [1, 2, 3, 4, 31])
def test_numbers_that_do_not_divide_differ_by_one_at_most(wanted: int) -> None:
    counts = make(Scripted(), max_pairs=wanted).funnel.per_principle
    assert sum(counts.values()) == wanted
    assert max(counts.values()) - min(counts.values()) <= 1


@settings(deadline=None, max_examples=60)
@given(
    st.dictionaries(
        st.sampled_from(["stop", "length", "filtered", "error", "short", "silent"]),
        st.integers(1, 5),
        min_size=1,
    ),
    st.integers(1, 40),
    st.integers(1, 30),
    st.integers(1, 3),
)
def test_the_counts_add_up_whatever_fails(
    weights: dict[str, int], max_pairs: int, count: int, passes: int
) -> None:
    config = CONFIG.model_copy(update={"max_passes": passes})
    engine = Scripted(by_chance({"stop": 3} | weights))
    try:
        made = make(engine, count, max_pairs, config)
    except DataError:
        return
    funnel = made.funnel
    assert funnel.candidates == sum(funnel.rejected.values()) + funnel.accepted
    assert funnel.accepted == funnel.pairs + funnel.surplus
    assert funnel.pairs + funnel.shortfall == max_pairs
    assert funnel.pairs == len(made.pairs) == sum(funnel.per_principle.values())
    assert max(funnel.per_principle.values()) - min(funnel.per_principle.values()) <= 1
    assert funnel.episodes <= count * passes
    assert Counter(r.reason for r in made.rejected).items() <= funnel.rejected.items()


def test_the_way_from_candidates_to_pairs_can_be_shown() -> None:
    funnel = make(Scripted(by_chance({"stop": 4, "length": 1}))).funnel
    steps = funnel.steps()
    assert steps[0] == ("Candidates", funnel.candidates)
    assert steps[-1] == ("Pairs", funnel.pairs)
    assert ("The response ran into its token limit", funnel.rejected["response_truncated"]) in steps


@pytest.mark.parametrize(
    ("stage", "outcome", "reason"),
    [
        (stage, outcome, f"{stage}_{how}")
        for stage in ("response", "critique", "revision")
        for outcome, how in (
            ("length", "truncated"), ("error", "failed"), ("filtered", "failed"),
            ("silent", "failed"),
        )
    ],
)  # fmt: skip
def test_what_a_model_did_not_finish_is_counted_and_never_trained_on(
    stage: str, outcome: str, reason: str
) -> None:
    def sometimes(at: str, principle: str, digest: int) -> str:
        return outcome if at == stage and digest % 3 == 0 else "stop"

    made = make(Scripted(sometimes))
    assert set(made.funnel.rejected) == {reason}
    assert made.funnel.rejected[reason] > 0
    for pair in made.pairs:
        assert pair.chosen[0].content == prose(pair.provenance["revision_call"])


def test_a_filtered_candidate_is_shown_with_its_reason() -> None:
    made = make(Scripted(lambda s, p, d: "short" if s == "revision" and d % 4 == 0 else "stop"))
    assert made.rejected
    assert {(r.reason, r.chosen) for r in made.rejected} == {("too_short", "Too few words.")}


def test_the_scarcest_principle_decides_and_the_rest_is_surplus() -> None:
    def scarce(stage: str, principle: str, digest: int) -> str:
        return "length" if stage == "revision" and principle == "calm" and digest % 8 else "stop"

    few = CONFIG.model_copy(update={"max_passes": 4})
    made = make(Scripted(scarce), count=20, max_pairs=60, config=few)
    counts = made.funnel.per_principle
    assert len(set(counts.values())) == 1
    assert 0 < counts["calm"] < 20
    assert made.funnel.surplus > 0
    assert made.funnel.shortfall == 60 - made.funnel.pairs


def test_a_principle_that_has_its_share_is_not_asked_further() -> None:
    def scarce(stage: str, principle: str, digest: int) -> str:
        return "length" if stage == "revision" and principle == "calm" and digest % 4 else "stop"

    made = make(Scripted(scarce), count=100, max_pairs=30)
    assert made.funnel.shortfall == 0
    assert made.funnel.candidates < 3 * made.funnel.episodes


def test_prompts_are_gone_through_again_with_new_texts_until_it_is_enough() -> None:
    made = make(Scripted(), count=5, max_pairs=30)
    assert made.funnel.pairs == 30
    assert made.funnel.episodes > 5
    assert len({p.chosen[0].content for p in made.pairs}) == 30
    one_pass = CONFIG.model_copy(update={"max_passes": 1})
    assert make(Scripted(), count=5, max_pairs=30, config=one_pass).funnel.shortfall == 15


# --- models that have a say -----------------------------------------------------------------------


class Judging(Scripted):
    """Also finds for one of two answers: for the longer text's own reason, never by place."""

    dtype = "float32"

    async def choose(self, messages: tuple[Message, ...], options: tuple[str, ...]) -> list[float]:
        for _ in range(self._jitter.randrange(4)):
            await asyncio.sleep(0)
        a, _, b = messages[-1].content.partition("Answer A: ")[2].partition("Answer B: ")
        b = b.partition("Which answer")[0]
        return [int(fingerprint(text.strip(), 8), 16) / 2**32 for text in (a, b)]

    async def text_logprob(self, text: str) -> tuple[float, int]:
        raise NotImplementedError


JUDGED = CONFIG.model_copy(update={"quality": QualityConfig(judge="self")})


def test_only_pairs_that_the_judge_finds_better_are_kept_whatever_finishes_first() -> None:
    made = make(Judging(jitter=1), config=JUDGED)
    assert made.funnel.pairs == 30
    assert set(made.funnel.rejected) == {"judged_worse"}
    assert made.funnel.rejected["judged_worse"] > 5
    for pair in made.pairs:
        better, worse = (
            int(fingerprint(m[0].content, 8), 16) / 2**32 for m in (pair.chosen, pair.rejected)
        )
        assert float(pair.provenance["judge_margin"]) == pytest.approx(better - worse, abs=1e-4)
        assert better > worse
    assert all(make(Judging(jitter=seed), config=JUDGED) == made for seed in range(2, 5))


def test_another_judge_can_be_given() -> None:
    made = make(Scripted(), config=JUDGED, judge=Judging())
    assert made == make(Judging(), config=JUDGED)


def test_an_engine_that_cannot_judge_says_which_setting_wants_it_to() -> None:
    with pytest.raises(ConfigError, match=r"preferences\.quality\.judge is 'self'.*scripted@1"):
        make(Scripted(), config=JUDGED)


def test_a_judge_that_is_gone_ends_it() -> None:
    class Gone(Judging):
        async def choose(self, messages, options):
            raise EngineError("judge gone")

    with pytest.raises(EngineError, match="judge gone"):
        make(Gone(), config=JUDGED)


def test_a_judged_run_that_is_killed_continues_to_the_same_pairs(tmp_path: Path) -> None:
    def run(path: Path) -> tuple[PairSet, int]:
        async def go() -> tuple[PairSet, int]:
            with Journal.open(path) as journal:
                engine = Recorded(Judging(jitter=3), journal)
                made = await make_pairs(engine, prompts(40), CONSTITUTION, JUDGED, 12)
                return made, engine.asked

        return asyncio.run(go())

    whole, asked = run(tmp_path / "whole.jsonl")
    data = (tmp_path / "whole.jsonl").read_bytes()
    for part in range(1, 5):
        path = tmp_path / f"{part}.jsonl"
        path.write_bytes(data[: len(data) * part // 5])
        again, more = run(path)
        assert again == whole
        assert more < asked


def test_what_a_classifier_finds_toxic_is_never_kept() -> None:
    class Harsh:
        def score(self, texts):
            return [float("courage" in text) for text in texts]

    made = make(Scripted(), classify=Harsh())
    assert made.funnel.rejected["toxic"] > 0
    assert not any("courage" in pair.chosen[0].content for pair in made.pairs)


# --- lengths, sources, hazards --------------------------------------------------------------------


class Growing(Scripted):
    """Writes revisions of about `times` the response's length."""

    def __init__(self, times: float) -> None:
        super().__init__()
        self._times = times

    async def generate(self, call: Call) -> Completion:
        made = await super().generate(call)
        stage, said = len(call.messages), made.text.split()
        # From half to twice the factor, so that there is something to choose from.
        spread = 2 ** (int(fingerprint(call.key(self.model), 8), 16) / 2**31 - 1)
        kept = round(20 * self._times * spread) if stage == 6 else 20
        return made.model_copy(update={"text": " ".join((said * 5)[:kept]) + " friend."})


def test_chosen_answers_are_not_longer_on_average_than_the_limit_from_ten_pairs_on() -> None:
    quality = CONFIG.quality.model_copy(update={"max_repetition": 1.0, "min_words": 1})
    config = CONFIG.model_copy(update={"quality": quality})
    made = make(Growing(1.8), config=config)
    assert made.funnel.shortfall == 0
    assert made.funnel.rejected["length_bias"] > 0
    assert 1.3 < made.funnel.mean_length_ratio <= 1.5
    # Ten a principle, of three; fewer say nothing.
    for many in {30, len(made.pairs)}:
        ratios = [len(words(p.chosen[0].content)) / len(words(p.rejected[0].content))
                  for p in made.pairs[:many]]  # fmt: skip
        assert math.prod(ratios) ** (1 / many) <= 1.5 + 1e-9
    free = quality.model_copy(update={"max_mean_length_ratio": None})
    grown = make(Growing(1.8), config=CONFIG.model_copy(update={"quality": free}))
    assert grown.funnel.mean_length_ratio > 1.6
    short = make(Growing(0.55), config=config)
    assert 1 / 1.5 <= short.funnel.mean_length_ratio < 0.75


def test_pairs_are_counted_by_source_and_hazard_also_where_there_are_none() -> None:
    class Choosy(Scripted):
        async def generate(self, call: Call) -> Completion:
            made = await super().generate(call)
            text = "".join(m.content for m in call.messages)
            return made.model_copy(update={"text": "No."}) if "friend 7?" in text else made

    mixed = [
        p.model_copy(
            update={"source": "b" if i % 4 else "a", "hazard": {1: "vcr", 7: "sxc"}.get(i)}
        )
        for i, p in enumerate(prompts(16))
    ]
    funnel = asyncio.run(make_pairs(Choosy(), mixed, CONSTITUTION, CONFIG, 45)).funnel
    assert funnel.per_source.keys() == {"a", "b"}
    assert sum(funnel.per_source.values()) == funnel.pairs
    assert funnel.per_source["a"] < funnel.per_source["b"]
    assert funnel.per_hazard["vcr"] > 0
    assert funnel.per_hazard["sxc"] == 0
    assert funnel.unmet == ["No pair came of hazard sxc."]


def test_a_pair_knows_the_hazard_of_its_prompt() -> None:
    made = asyncio.run(make_pairs(Scripted(), prompts(40, hazard="vcr"), CONSTITUTION, CONFIG, 30))
    assert {pair.hazard for pair in made.pairs} == {"vcr"}


def test_what_could_not_be_met_is_said() -> None:
    one_pass = CONFIG.model_copy(update={"max_passes": 1})
    funnel = make(Scripted(), count=5, max_pairs=30, config=one_pass).funnel
    assert funnel.unmet == ["15 of 30 pairs could not be made."]
    assert make(Scripted()).funnel.unmet == []


def test_a_funnel_that_was_written_before_sources_were_counted_is_read() -> None:
    old = make(Scripted()).funnel.model_dump(
        exclude={"per_source", "per_hazard", "mean_length_ratio"}
    )
    assert Funnel.model_validate(old).unmet == []


# --- the same every time --------------------------------------------------------------------------


def test_the_order_in_which_calls_finish_changes_nothing() -> None:
    outcome = by_chance({"stop": 5, "length": 1, "short": 1})
    first = make(Scripted(outcome, jitter=1))
    assert all(make(Scripted(outcome, jitter=seed)) == first for seed in range(2, 7))


def test_the_order_of_the_prompt_file_changes_nothing() -> None:
    async def shuffled(seed: int) -> PairSet:
        order = prompts(40)
        random.Random(seed).shuffle(order)
        return await make_pairs(Scripted(), order, CONSTITUTION, CONFIG, 30)

    assert asyncio.run(shuffled(1)) == asyncio.run(shuffled(2))


def test_another_seed_makes_other_pairs() -> None:
    other = CONFIG.model_copy(update={"seed": 1})
    assert make(Scripted(), config=other).pairs != make(Scripted()).pairs


def test_killed_between_and_within_rounds_it_continues_to_the_same_pairs(tmp_path: Path) -> None:
    lenient = CONFIG.quality.model_copy(
        update={"min_words": 1, "min_tokens": 1, "min_topic_overlap": 0}
    )
    config = CONFIG.model_copy(update={"quality": lenient})

    def run(path: Path) -> tuple[PairSet, int]:
        async def go() -> tuple[PairSet, int]:
            with Journal.open(path) as journal:
                async with BatchedFake(batch_size=8) as fake:
                    engine = Recorded(fake, journal)
                    made = await make_pairs(engine, prompts(60), CONSTITUTION, config, 60)
                    return made, engine.asked

        return asyncio.run(go())

    whole, asked = run(tmp_path / "whole.jsonl")
    assert whole.funnel.pairs == 60
    data = (tmp_path / "whole.jsonl").read_bytes()
    for part in range(1, 12):
        path = tmp_path / f"{part}.jsonl"
        path.write_bytes(data[: len(data) * part // 12])
        again, more = run(path)
        assert again == whole
        assert more < asked


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [0, -5])
def test_too_few_pairs_asked_for_says_what_to_give(number: int) -> None:
    with pytest.raises(ConfigError, match=r"--max-pairs is .*e\.g\. --max-pairs 500"):
        make(Scripted(), max_pairs=number)


def test_how_many_is_no_part_of_the_configuration() -> None:
    assert "max_pairs" not in PreferenceConfig.model_fields


def test_no_prompts_is_an_error() -> None:
    with pytest.raises(DataError, match="no prompts"):
        make(Scripted(), count=0)


def test_prompts_of_the_test_side_are_refused() -> None:
    mixed = [*prompts(3), *prompts(1, id="held-out", split="test")]
    with pytest.raises(DataError, match=r"1 prompts are on the test side \(first: held-out\)"):
        asyncio.run(make_pairs(Scripted(), mixed, CONSTITUTION, CONFIG, 3))


def test_members_only_prompts_are_refused_unless_their_text_may_be_copied() -> None:
    secret = prompts(40, restricted=True)
    with pytest.raises(DataError, match=r"40 prompts are members-only \(first: p0\)"):
        asyncio.run(make_pairs(Scripted(), secret, CONSTITUTION, CONFIG, 3))
    allowed = CONFIG.model_copy(update={"include_restricted": True})
    made = asyncio.run(make_pairs(Scripted(), secret, CONSTITUTION, allowed, 3))
    assert made.funnel.pairs == 3


def test_not_one_pair_says_why() -> None:
    with pytest.raises(DataError, match=r"response_truncated.*longer token limits"):
        make(Scripted(lambda *_: "length"), count=3)


def test_an_engine_that_is_gone_ends_it() -> None:
    class Gone(Scripted):
        async def generate(self, call: Call) -> Completion:
            raise EngineError("gone")

    with pytest.raises(EngineError, match="gone"):
        make(Gone())


# --- around it ------------------------------------------------------------------------------------


def test_progress_counts_every_call_and_never_goes_back() -> None:
    seen: list[tuple[int, int, int]] = []
    made = make(Scripted(), on_progress=lambda *numbers: seen.append(numbers))
    # Also of episodes that were open when it was enough; they are no part of the set.
    assert len(seen) >= made.funnel.episodes
    assert {wanted for _, wanted, _ in seen} == {30}
    assert seen == sorted(seen)
    assert seen[-1][2] >= made.funnel.calls


def test_pairs_are_written_in_trls_format_whole_or_not_at_all(tmp_path: Path) -> None:
    made = make(Scripted(), max_pairs=3)
    path = tmp_path / "pairs.jsonl"
    write_pairs(made.pairs, path)
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert len(rows) == 3
    assert rows[0]["chosen"] == [{"role": "assistant", "content": made.pairs[0].chosen[0].content}]
    assert [p.name for p in tmp_path.iterdir()] == ["pairs.jsonl"]
