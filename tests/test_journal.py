"""The journal file (torn, damaged, locked, full) and the engine that records into it."""

from __future__ import annotations

import asyncio
import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ccai_core.errors import ArtifactError, CCAIError, DataError, EngineError
from ccai_core.journal import Journal, Recorded, Scores, main
from ccai_core.types import Call, Completion, Message, Sampling, user

TEXT = "Déjà vu: “yes”\u2028\n\x00 and 日本"


def call(text: str = "Hello", **sampling) -> Call:
    return Call(messages=(user(text),), sampling=Sampling(**sampling))


def completion(text: str = TEXT, **fields) -> Completion:
    return Completion(**{"text": text, "finish_reason": "stop", "model": "m@1"} | fields)


def in_batch(name: str, size: int) -> list[tuple[str, Completion]]:
    return [(f"{name}{i}", completion(batch=name, batch_size=size)) for i in range(size)]


def fill(path: Path, *batches) -> bytes:
    with Journal.open(path) as journal:
        for batch in batches:
            journal.append(batch)
    return path.read_bytes()


def keys(path: Path) -> set[str]:
    with Journal.open(path) as journal:
        return set(journal.keys())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal" / "calls.jsonl"


# --- the file -------------------------------------------------------------------------------------


def test_what_was_appended_is_there_again(path: Path) -> None:
    scores = Scores(values=(-0.1, -2.5e-7), tokens=3, model="m@1/float32")
    fill(path, [("a", completion()), ("b", scores)], [("a", completion("newer"))])
    with Journal.open(path) as journal:
        assert len(journal) == 2
        assert journal.get("a") == completion("newer")
        assert journal.get("b") == scores
        assert journal.get("c") is None


@settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.text(), st.lists(st.floats(allow_nan=False), max_size=3))
def test_any_text_and_number_survives(path: Path, text: str, values: list[float]) -> None:
    path.unlink(missing_ok=True)
    fill(path, [("t", completion(text)), ("s", Scores(values=tuple(values)))])
    with Journal.open(path) as journal:
        assert journal.get("t").text == text
        assert list(journal.get("s").values) == values


def test_cut_at_any_byte_it_opens_with_whole_batches_only(path: Path) -> None:
    data = fill(path, in_batch("a", 2), [("single", completion())], in_batch("b", 3))
    lines = data.splitlines(keepends=True)
    ends = [sum(map(len, lines[:n])) for n in range(len(lines) + 1)]
    for cut in sorted({*range(0, len(data), 7), *ends, *(end - 1 for end in ends[1:])}):
        path.write_bytes(data[:cut])
        found = keys(path)
        whole = data[:cut].count(b"\n")
        expected = {"a0", "a1"} if whole >= 2 else set()
        expected |= {"single"} if whole >= 3 else set()
        expected |= {"b0", "b1", "b2"} if whole == 6 else set()
        assert found == expected, f"cut at {cut}"
        assert path.read_bytes() == b"".join(lines[:whole])


def test_after_a_torn_line_is_cut_appending_goes_on(path: Path) -> None:
    data = fill(path, [("a", completion())], [("b", completion())])
    path.write_bytes(data[:-5])
    fill(path, [("c", completion())])
    assert keys(path) == {"a", "c"}


@pytest.mark.parametrize("damage", [b"x", b"\xff", b"\n"])
def test_damage_before_the_end_refuses_and_repair_is_the_way_out(
    path: Path, damage: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    data = fill(path, [("a", completion())], in_batch("b", 2), [("c", completion())])
    second = data.index(b"\n") + 1
    path.write_bytes(data[: second + 20] + damage + data[second + 21 :])
    with pytest.raises(DataError, match=r"line 2: is damaged.*journal repair"):
        Journal.open(path)
    assert main(["verify", str(path)]) == 1
    assert "damaged lines: 2" in capsys.readouterr().err
    assert main(["repair", str(path)]) == 0
    assert "moved to" in capsys.readouterr().out
    assert main(["verify", str(path)]) == 0
    # The batch that the damaged line belonged to is computed again as a whole.
    assert keys(path) == {"a", "c"}
    assert path.with_name("calls.jsonl.damaged").read_bytes()


def test_repairing_a_good_journal_changes_nothing(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = fill(path, in_batch("a", 2))
    assert main(["repair", str(path)]) == 0
    assert capsys.readouterr().out == "nothing to repair\n"
    assert path.read_bytes() == data
    assert sorted(p.name for p in path.parent.iterdir()) == ["calls.jsonl", "calls.jsonl.lock"]


def test_a_line_of_an_unknown_kind_is_not_taken_for_something_else(path: Path) -> None:
    from zlib import crc32

    body = b'["later","k",{"text":"?"}]'
    path.parent.mkdir()
    path.write_bytes(b"%08x %b\n" % (crc32(body), body))
    with pytest.raises(DataError, match="another version"):
        Journal.open(path)


def test_stats_count_both_kinds(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cut = completion(finish_reason="length", completion_tokens=7)
    fill(path, [("a", completion(completion_tokens=5)), ("b", cut)])
    fill(path, [("s", Scores(values=(-1.0,), model="m@1/float32"))])
    assert main(["stats", str(path)]) == 0
    out = capsys.readouterr().out
    assert "3 calls (1 stop, 1 length, 1 scores), 12 tokens, 0 damaged lines" in out
    assert "2  m@1\n" in out
    assert "1  m@1/float32" in out


def test_looking_at_a_missing_journal_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["stats", str(tmp_path / "no.jsonl")]) == 2
    assert "there is no such journal" in capsys.readouterr().err


# --- who may write --------------------------------------------------------------------------------


def test_a_second_process_is_refused_at_once_but_may_look(path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from ccai_core.journal import Journal\n"
        "try: Journal.open(Path(sys.argv[1]))\n"
        "except Exception as e: print(type(e).__name__, e)"
    )
    with Journal.open(path) as journal:
        journal.append([("a", completion())])
        other = subprocess.run(
            [sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=30
        )
        assert "ArtifactError" in other.stdout
        assert "another process is writing to this journal" in other.stdout
        assert main(["verify", str(path)]) == 0
        assert main(["repair", str(path)]) == 2
        with pytest.raises(ArtifactError):
            Journal.open(path)
    assert keys(path) == {"a"}


def test_a_refused_damaged_journal_is_not_left_locked(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"nonsense\n")
    for _ in range(2):
        with pytest.raises(DataError):
            Journal.open(path)
    path.unlink()
    assert keys(path) == set()


def test_a_killed_writer_leaves_no_lock(path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from ccai_core.journal import Journal\n"
        "Journal.open(Path(sys.argv[1])); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], timeout=30)
    assert done.returncode == -9
    assert keys(path) == set()


def test_a_place_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtifactError, match="cannot be written"):
        Journal.open(tmp_path / "file" / "calls.jsonl")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ArtifactError, match="cannot be opened"):
        Journal.open(tmp_path / "folder")


def test_a_full_disk_leaves_no_half_line_behind(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.write

    def full(descriptor: int, data: bytes) -> int:
        if len(data) > 40:
            return real(descriptor, data[:40])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with Journal.open(path) as journal:
        journal.append([("a", completion())])
        monkeypatch.setattr(os, "write", full)
        with pytest.raises(ArtifactError, match=r"No space left on device.*make room"):
            journal.append([("b", completion())])
        assert journal.get("b") is None
        monkeypatch.setattr(os, "write", real)
        journal.append([("c", completion())])
    assert keys(path) == {"a", "c"}


# --- recording ------------------------------------------------------------------------------------


class Counting:
    """Answers after two loop turns; counts what it was asked."""

    model = "m@1"
    dtype = "float32"

    def __init__(self, **fields) -> None:
        self.fields, self.asked, self.cancelled = fields, [], 0

    async def generate(self, request: Call) -> Completion:
        await self._note(request.messages[-1].content)
        return completion("answer", **self.fields)

    async def choose(self, messages: tuple[Message, ...], options: tuple[str, ...]) -> list[float]:
        await self._note((messages[-1].content, options))
        return [-float(i) - 0.125 for i, _ in enumerate(options)]

    async def text_logprob(self, text: str) -> tuple[float, int]:
        await self._note(text)
        return -1.5, 4

    async def _note(self, what) -> None:
        self.asked.append(what)
        try:
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise


class TextOnly:
    model = "hosted@1"

    async def generate(self, request: Call) -> Completion:
        return completion()


def with_recorded(path: Path, engine, use):
    async def go():
        with Journal.open(path) as journal:
            return await use(Recorded(engine, journal))

    return asyncio.run(go())


def test_every_kind_of_answer_is_asked_once_and_then_replayed(path: Path) -> None:
    async def use(engine: Recorded):
        answers = (
            await engine.generate(call()),
            await engine.choose((user("Is it?"),), ("Yes", "No")),
            await engine.text_logprob("A text."),
        )
        return answers, engine.asked, engine.replayed

    engine = Counting()
    first = with_recorded(path, engine, use)
    assert first == ((completion("answer"), [-0.125, -1.125], (-1.5, 4)), 3, 0)
    assert len(engine.asked) == 3
    again = with_recorded(path, engine, use)
    assert again == (first[0], 0, 3)
    assert len(engine.asked) == 3


def test_scores_of_another_precision_model_text_or_option_are_asked_anew(path: Path) -> None:
    async def use(engine: Recorded) -> None:
        for question in ("Is it?", "Was it?"):
            for options in (("Yes", "No"), ("No", "Yes"), ("Yes", "No", "Maybe")):
                await engine.choose((user(question),), options)
        await engine.text_logprob("Is it?")

    engine = Counting()
    for number, (model, dtype) in enumerate(
        [("m@1", "float32"), ("m@1", "bfloat16"), ("m@2", "float32"), ("m@1", "float32")], start=1
    ):
        engine.model, engine.dtype = model, dtype
        with_recorded(path, engine, use)
        assert len(engine.asked) == 7 * min(number, 3)


def test_texts_are_replayed_whatever_precision_they_were_computed_in(path: Path) -> None:
    engine = Counting()
    with_recorded(path, engine, lambda e: e.generate(call()))
    engine.dtype = "bfloat16"
    with_recorded(path, engine, lambda e: e.generate(call()))
    assert len(engine.asked) == 1


@pytest.mark.parametrize(
    "other", [call("Other"), call(seed=1), call(temperature=0.1), call(max_new_tokens=9)]
)
def test_another_call_is_another_key(other: Call) -> None:
    assert other.key("m@1") != call().key("m@1")
    assert call().key("m@2") != call().key("m@1")


def test_identical_questions_in_flight_are_asked_once(path: Path) -> None:
    engine = Counting()

    async def use(recorded: Recorded):
        texts = [recorded.generate(call()) for _ in range(5)]
        scores = [recorded.choose((user("?"),), ("A", "B")) for _ in range(5)]
        return await asyncio.gather(*texts, *scores)

    answers = with_recorded(path, engine, use)
    assert answers[:5] == [completion("answer")] * 5
    assert answers[5:] == [[-0.125, -1.125]] * 5
    assert len(engine.asked) == 2


def test_one_caller_giving_up_does_not_disturb_another_with_the_same_question(path: Path) -> None:
    engine = Counting()

    async def use(recorded: Recorded) -> Completion:
        first, second = (asyncio.ensure_future(recorded.generate(call())) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        return await second

    assert with_recorded(path, engine, use) == completion("answer")
    assert engine.cancelled == 0


def test_the_last_caller_giving_up_stops_the_asking(path: Path) -> None:
    engine = Counting()

    async def use(recorded: Recorded) -> Completion:
        first = asyncio.ensure_future(recorded.generate(call()))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.sleep(0)
        # Whoever comes now asks afresh and is not cancelled with it.
        return await recorded.generate(call())

    assert with_recorded(path, engine, use) == completion("answer")
    assert engine.cancelled == 1


@pytest.mark.parametrize("turns", range(10))
def test_a_caller_who_comes_just_when_a_question_fails_is_answered_too(
    path: Path, turns: int
) -> None:
    async def use(recorded: Recorded) -> list[Completion]:
        first = asyncio.ensure_future(recorded.generate(call()))
        for _ in range(turns):
            await asyncio.sleep(0)
        second = await asyncio.wait_for(recorded.generate(call()), 5)
        return [await first, second]

    answers = with_recorded(path, Counting(finish_reason="error"), use)
    assert [each.finish_reason for each in answers] == ["error", "error"]


def test_failures_are_told_but_tried_again_by_the_next_run(path: Path) -> None:
    engine = Counting(finish_reason="error")
    for n in (1, 2):
        failed = with_recorded(path, engine, lambda e: e.generate(call()))
        assert failed.finish_reason == "error"
        assert len(engine.asked) == n
    assert path.read_bytes() == b""


def test_a_truncated_text_is_recorded_as_what_it_is(path: Path) -> None:
    engine = Counting(finish_reason="length")
    for _ in range(2):
        cut = with_recorded(path, engine, lambda e: e.generate(call()))
        assert cut.finish_reason == "length"
    assert len(engine.asked) == 1


def test_an_exception_of_the_engine_reaches_every_caller(path: Path) -> None:
    class Broken(TextOnly):
        async def generate(self, request: Call) -> Completion:
            raise EngineError("gone")

    async def use(recorded: Recorded):
        return await asyncio.gather(
            *(recorded.generate(call()) for _ in range(3)), return_exceptions=True
        )

    assert [str(e) for e in with_recorded(path, Broken(), use)] == ["gone"] * 3


def test_a_journal_that_cannot_be_written_stops_every_caller(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    async def use(recorded: Recorded):
        monkeypatch.setattr(os, "fsync", broken)
        calls = [asyncio.wait_for(recorded.generate(call(str(i))), 5) for i in range(3)]
        return await asyncio.gather(*calls, return_exceptions=True)

    errors = with_recorded(path, Counting(), use)
    assert all(isinstance(e, ArtifactError) for e in errors)
    assert path.read_bytes() == b""


def test_a_call_that_finishes_after_the_journal_is_closed_does_not_hang(path: Path) -> None:
    async def go() -> None:
        with Journal.open(path) as journal:
            recorded = Recorded(Counting(), journal)
        await asyncio.wait_for(recorded.generate(call()), 5)

    with pytest.raises(CCAIError, match="is closed"):
        asyncio.run(go())


def test_an_engine_that_only_writes_texts_says_so_when_asked_to_weigh(path: Path) -> None:
    with pytest.raises(EngineError, match="hosted@1 gives texts only"):
        with_recorded(path, TextOnly(), lambda e: e.choose((user("?"),), ("Yes", "No")))


class Gathers(Counting):
    """Computes in batches, so its answers stand and fall together."""

    def stir(self) -> None:
        pass


def test_scores_torn_in_writing_are_all_forgotten(path: Path) -> None:
    async def use(recorded: Recorded) -> None:
        await asyncio.gather(*(recorded.text_logprob(f"text {i}") for i in range(3)))

    engine = Gathers()
    with_recorded(path, engine, use)
    lines = path.read_bytes().splitlines(keepends=True)
    assert len(lines) == 3
    path.write_bytes(lines[0] + lines[1])
    assert keys(path) == set()
    with_recorded(path, engine, use)
    assert len(engine.asked) == 6


@pytest.mark.parametrize("kind", [Counting, Gathers])
def test_what_finishes_together_is_written_with_one_fsync(
    path: Path, kind: type[Counting], monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = []
    monkeypatch.setattr(os, "fsync", synced.append)

    async def use(recorded: Recorded) -> None:
        await asyncio.gather(*(recorded.generate(call(str(i))) for i in range(50)))

    with_recorded(path, kind(), use)
    assert len(synced) == 1


def test_an_answer_is_given_only_once_it_is_on_the_disk(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_sync, real = threading.Event(), os.fsync

    def slow(descriptor: int) -> None:
        may_sync.wait(5)
        real(descriptor)

    async def use(recorded: Recorded) -> None:
        monkeypatch.setattr(os, "fsync", slow)
        asked = asyncio.ensure_future(recorded.generate(call()))
        done, _ = await asyncio.wait({asked}, timeout=0.2)
        assert not done  # and the loop is free meanwhile
        may_sync.set()
        await asked

    with_recorded(path, Counting(), use)


def test_what_gathers_when_a_run_is_left_is_written_before_the_journal_closes(path: Path) -> None:
    with Journal.open(path) as journal:
        for n in range(100):
            journal.put(f"k{n}", completion())
    assert keys(path) == {f"k{n}" for n in range(100)}


def test_a_longer_journal_than_fits_one_step_of_the_index_is_found_again(path: Path) -> None:
    texts = {f"k{n}": f"text {n}" for n in range(70_000)}
    with Journal.open(path) as journal:
        journal.append([(key, completion(text)) for key, text in texts.items()])
        journal.append([("k7", completion("newer"))])
        assert len(journal) == 70_000
        assert journal.get("k7").text == "newer"
        assert journal.get("k69999").text == "text 69999"
    with Journal.open(path) as journal:
        assert len(journal) == 70_000
        assert journal.get("k7").text == "newer"
        assert all(journal.get(key).text == texts[key] for key in ("k0", "k8", "k65536", "k69999"))


def test_compacting_leaves_out_what_no_run_would_replay(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torn = in_batch("b", 3)[:2]
    fill(path, [("a", completion("old"))], [("c", completion())], torn, [("a", completion("new"))])
    assert main(["compact", str(path)]) == 0
    assert capsys.readouterr().out.startswith("3 lines left out; ")
    assert main(["verify", str(path)]) == 0
    with Journal.open(path) as journal:
        assert list(journal.keys()) == ["c", "a"]
        assert journal.get("a").text == "new"
        assert main(["compact", str(path)]) == 2
    assert "another process" in capsys.readouterr().err


def test_a_line_that_changes_under_an_open_journal_is_never_taken_for_a_text(path: Path) -> None:
    with Journal.open(path) as journal:
        journal.append([("a", completion())])
        damaged = bytearray(path.read_bytes())
        damaged[40] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(DataError, match="has changed"):
            journal.get("a")


def test_a_journal_may_be_closed_in_another_thread(path: Path) -> None:
    journal = Journal.open(path)
    closing = threading.Thread(target=journal.close)
    closing.start()
    closing.join()
    assert keys(path) == set()
