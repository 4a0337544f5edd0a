"""Pairs from a fleet: the very same data set from one endpoint or four, struck or not."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from ccai_core.chat_tokens import ChatTokens
from ccai_core.constitution import Constitution, Principle
from ccai_core.generation import PairRequest, generate_pairs
from ccai_core.journal_lines import read_lines
from ccai_core.models import ModelRef, Precision, load_tokenizer, resolve_model
from ccai_core.preferences import PreferenceConfig
from ccai_core.prompts.splits import split_of
from ccai_core.quality import QualityConfig
from ccai_core.types import Prompt, fingerprint
from infra.client import Client, ClientConfig
from infra.engines import ServeSpec
from tasks.fleet_engines import FleetEngine
from tests.infra.model_server import KEY, ModelServer
from tests.tiny_model import save_tiny_model

IDS = ("care", "candour", "calm")
CONSTITUTION = Constitution(
    name="Test",
    principles=tuple(
        Principle(id=p, name=p, critique=f"Criticise by {p}.", revision=f"Revise by {p}.")
        for p in IDS
    ),
)
WORDS = (
    "friend patience evening listen kindly garden honest trouble answer morning river worry letter "
    "gentle promise window brother silence courage bread distance winter careful market"
).split()
QUICK = ClientConfig(
    backoff_seconds=0.001, refresh_seconds=0.02, leave_seconds=0.05, wait_seconds=5.0,
    rest_seconds=0.05,
)  # fmt: skip


class Writer(ModelServer):
    """Says what the request decides, after a while that it does not decide."""

    async def chat_after(self, _: ModelServer, request: web.Request) -> None:
        await asyncio.sleep(self.pauses.uniform(0, 0.004))

    def __init__(self, name: str, seed: int) -> None:
        super().__init__(name, max_parallel=6, fault=self.chat_after)
        self.pauses = random.Random(f"{seed} {name}")

    def _chat(self, body: dict[str, Any]) -> dict[str, Any]:
        said = super()._chat(body)
        digest = fingerprint([body["messages"], body["seed"], body["max_tokens"]])
        text = " ".join(random.Random(digest).sample(WORDS, 18)) + " friend."
        said["choices"][0]["message"]["content"] = text
        said["choices"][0]["finish_reason"] = "length" if digest[0] == "0" else "stop"
        return said


class Servers:
    """`OpenEngine` over so many servers; after some calls the first one dies."""

    def __init__(self, count: int, seed: int, dies_after: int | None = None) -> None:
        self.count, self.seed, self.dies_after = count, seed, dies_after
        self.asked = 0

    @asynccontextmanager
    async def __call__(
        self, model: ModelRef, precision: Precision = "auto", batch_size: int = 32
    ) -> AsyncIterator[FleetEngine]:
        async with AsyncExitStack() as stack:
            writers = [Writer(f"s{n}", self.seed) for n in range(self.count)]
            servers = [await stack.enter_async_context(each) for each in writers]
            present = [each.endpoint for each in servers]
            client = await stack.enter_async_context(Client(lambda: present, KEY, QUICK))
            tokens = ChatTokens(load_tokenizer(model))
            if self.dies_after:
                killing = asyncio.create_task(self._kill(servers[0], self.dies_after))
                stack.callback(killing.cancel)
            spec = ServeSpec(engine="vllm", model=str(model.path), served_name=model.identity)
            yield FleetEngine(model, client, tokens, spec)
            self.asked = sum(len(each.bodies) for each in servers)

    async def _kill(self, server: ModelServer, after: int) -> None:
        while len(server.done) < after:
            await asyncio.sleep(0.001)
        await server.die()


@pytest.fixture(scope="module")
def request_(tmp_path_factory: pytest.TempPathFactory) -> PairRequest:
    model = resolve_model(str(save_tiny_model(tmp_path_factory.mktemp("model") / "tiny")))
    texts = (f"How do I help friend {n}?" for n in range(200))
    prompts = tuple(
        Prompt(id=f"p{n}", text=text, source="test", split="train")
        for n, text in enumerate(text for text in texts if split_of(text) == "train")
    )
    quality = QualityConfig(min_words=1, min_tokens=1)
    config = PreferenceConfig(quality=quality)
    return PairRequest(
        model=model, constitution=CONSTITUTION, prompts=prompts, max_pairs=60, config=config
    )


def data_of(folder: Path) -> dict[str, bytes]:
    files = [*folder.glob("data/*.parquet"), folder / "funnel.json", folder / "rejected.jsonl"]
    assert len(files) >= 3
    return {file.name: file.read_bytes() for file in files}


def test_endpoints_deaths_and_kills_change_no_byte(request_: PairRequest, tmp_path: Path) -> None:
    whole = tmp_path / "1.jsonl"
    made = generate_pairs(request_, tmp_path / "one", whole, Servers(1, 0))
    assert made.pairs == 60
    expected = data_of(tmp_path / "one")

    dying = Servers(4, 1, dies_after=30)
    generate_pairs(request_, tmp_path / "four", tmp_path / "4.jsonl", dying)
    assert data_of(tmp_path / "four") == expected

    # Cut anywhere, as by a kill, and gone on with by another number of servers.
    data, chance = whole.read_bytes(), random.Random(3)
    for count in (4, 1, 2):
        cut = tmp_path / f"cut-{count}.jsonl"
        cut.write_bytes(data[: chance.randrange(len(data))])
        whole_lines = cut.read_bytes().count(b"\n")
        servers = Servers(count, 7 + count)
        generate_pairs(request_, tmp_path / f"cut-{count}", cut, servers)
        assert data_of(tmp_path / f"cut-{count}") == expected
        # Nothing that was recorded is asked again, and all that is answered is recorded, but for
        # what is open when it is enough.
        keys = [found[0] for _, found in read_lines(cut) if found]
        assert len(set(keys)) == len(keys)
        assert 0 <= servers.asked - (len(keys) - whole_lines) <= 6 * count + 5
