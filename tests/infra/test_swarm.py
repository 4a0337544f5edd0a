"""A script written for llm-swarm, with one import changed, on stand-in engines on this machine."""

from __future__ import annotations

import functools
import importlib.metadata
import inspect
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import httpx
import llm_swarm
import pytest
import tyro
from transformers import HfArgumentParser

from ccai_core.errors import ConfigError, FleetError
from infra.processes import end_processes, job_processes
from infra.swarm import FleetConfig, Swarm
from infra.swarm_config import set_up
from tests.engines.programs import program
from tests.infra.swarms import MODEL, base, chat, config, profile, template, until

ROOT = Path(__file__).parents[2]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory; whatever still runs out of it is ended afterwards."""
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for attempt in tmp_path.glob("**/jobs/*/attempt-*"):
        end_processes(functools.partial(job_processes, str(attempt.resolve())), grace=0)


def longest() -> int:
    raise AssertionError("nobody needs the tokenizer")


# --- llm-swarm itself


def test_what_we_use_of_llm_swarm_is_there_and_as_we_take_it() -> None:
    assert importlib.metadata.version("llm-swarm") == "0.1.1"
    assert issubclass(Swarm, llm_swarm.LLMSwarm)
    assert issubclass(FleetConfig, llm_swarm.LLMSwarmConfig)
    theirs = {each.name: each.default for each in fields(llm_swarm.LLMSwarmConfig)}
    ours = {each.name: each.default for each in fields(FleetConfig)}
    assert theirs.items() <= ours.items()
    # Whatever llm-swarm's class can be called with, ours can.
    for name, theirs_of_it in inspect.getmembers(llm_swarm.LLMSwarm, inspect.isfunction):
        ours_of_it = getattr(Swarm, name)
        assert ours_of_it is not theirs_of_it, f"llm-swarm's own {name} would run"
        assert list(inspect.signature(ours_of_it).parameters) == list(
            inspect.signature(theirs_of_it).parameters
        )


def test_its_configuration_comes_from_command_lines_as_before() -> None:
    words = ["--instances", "3", "--model", "m", "--inference_engine", "vllm", "--max_length", "64"]
    (parsed,) = HfArgumentParser(FleetConfig).parse_args_into_dataclasses(
        [*words, "--options", "x"]
    )
    assert (parsed.instances, parsed.model, parsed.max_length) == (3, "m", 64)
    assert parsed.options == ["x"]
    assert tyro.cli(FleetConfig, args=words).inference_engine == "vllm"


# --- scripts

TGI_SCRIPT = """
import asyncio
from infra.swarm import FleetConfig as LLMSwarmConfig, Swarm as LLMSwarm
from huggingface_hub import AsyncInferenceClient

tasks = ["What is the capital of France?", "Who wrote Romeo and Juliet?", "Water?"]
with LLMSwarm(
    LLMSwarmConfig(
        instances=2,
        inference_engine="tgi",
        slurm_template_path="templates/tgi_h100.template.slurm",
        load_balancer_template_path="templates/nginx.template.conf",
        model="some/model", gpus=0, max_length=512,
    )
) as llm_swarm:
    semaphore = asyncio.Semaphore(llm_swarm.suggested_max_parallel_requests)
    client = AsyncInferenceClient(model=llm_swarm.endpoint)

    async def process_text(task):
        async with semaphore:
            return await client.text_generation(prompt=task, max_new_tokens=6)

    async def main():
        for answer in await asyncio.gather(*(process_text(task) for task in tasks)):
            print("answer:", answer)

    asyncio.run(main())
"""


def run_script(place: Path, script: str, **environment: str) -> list[str]:
    path = os.pathsep.join([str(place / "bin"), os.environ["PATH"]])
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=place, capture_output=True, text=True, timeout=60,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PATH": path, **environment}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_llm_swarms_own_example_runs_with_one_import_changed(place: Path) -> None:
    made = Path(template(place))
    (place / "templates").mkdir()
    made.rename(place / "templates" / "tgi_h100.template.slurm")
    # A key of the user's own, which the hub's client sends along, is no hindrance.
    answers = run_script(place, TGI_SCRIPT, CCAI_CLUSTER=profile(place), HF_TOKEN="hf_own")
    assert len(answers) == 3
    assert all(each.startswith("answer: kindness") for each in answers)
    assert not (place / "slurm").exists(), "llm-swarm's code has run"


VLLM_SCRIPT = """
import asyncio, aiohttp
from infra.swarm import FleetConfig as LLMSwarmConfig, Swarm as LLMSwarm

asked = LLMSwarmConfig(inference_engine="vllm", model="some/model", gpus=0,
                       slurm_template_path="templates/vllm_h100.template.slurm")
with LLMSwarm(asked) as llm_swarm:
    async def main():
        async with aiohttp.ClientSession() as session:
            body = {"prompt": "Once", "max_tokens": 3}
            async with session.post(llm_swarm.endpoint, json=body) as response:
                print((await response.json())["text"][0][len("Once"):])

    asyncio.run(main())
"""


def test_a_script_for_vllm_gets_what_its_old_server_gave(place: Path) -> None:
    program(place, "vllm")
    assert run_script(place, VLLM_SCRIPT, CCAI_CLUSTER=profile(place)) == [" a kind word"]


def test_a_swarm_has_all_that_scripts_read(place: Path) -> None:
    swarm = Swarm(config(place, instances=2, per_instance_max_parallel_requests=7))
    assert isinstance(swarm, llm_swarm.LLMSwarm)
    swarm.cleanup()  # before anything was started
    with pytest.raises(FleetError, match="not started"):
        _ = swarm.endpoints
    with swarm as inside:
        assert inside is swarm
        assert swarm.endpoint.startswith("http://127.0.0.1:")
        assert swarm.endpoint.endswith("/generate"), "as llm-swarm has it for vllm"
        assert swarm.suggested_max_parallel_requests == 14
        until(lambda: len(swarm.endpoints) == 2)
        assert len(swarm.job_ids) == 2
        assert chat(swarm)
        with_key = {"Authorization": f"Bearer {swarm.key}"}
        for url in swarm.endpoints:
            assert httpx.get(f"{url}/v1/models", headers=with_key).status_code == 200
        assert "tokenizer" not in vars(swarm), "loaded, though nobody asked for it"
        cut = base(swarm)[:-1]
        for wrong in (cut, base(swarm) + "x", base(swarm).rpartition("/")[0], swarm.endpoints[0]):
            assert httpx.get(f"{wrong}/v1/models").status_code == 401
        swarm.cleanup(15, None)
        assert swarm.cleaned_up
        with pytest.raises(httpx.ConnectError):
            chat(swarm)
    swarm.cleanup()


def test_a_debug_endpoint_is_used_as_it_is(place: Path) -> None:
    mine = "http://localhost:13120"
    with Swarm(FleetConfig(debug_endpoint=mine, instances=2)) as swarm:
        assert (swarm.endpoint, swarm.suggested_max_parallel_requests) == (mine, 1000)
    plain = llm_swarm.LLMSwarmConfig(debug_endpoint=mine, inference_engine="vllm")
    with Swarm(plain) as swarm:
        assert swarm.endpoint == f"{mine}/generate"
    hosted = "https://api-inference.huggingface.co/models/m"
    with Swarm(FleetConfig(debug_endpoint=hosted)) as swarm:
        assert swarm.suggested_max_parallel_requests == 40
    assert list(place.iterdir()) == []


def test_a_named_swarm_is_found_again(place: Path) -> None:
    asked = config(place, name="mine")
    with Swarm(asked) as swarm:
        with pytest.raises(FleetError, match="is driven by process"):
            Swarm(asked).start()
        assert chat(swarm), "the first one goes on"


# --- the plan


def test_a_plain_configuration_becomes_a_plan(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(place))
    plain = FleetConfig(model="a/b", per_instance_max_parallel_requests=64)
    made = set_up(plain, longest)
    assert made.cluster.name == "local"
    assert (made.plan.serve.engine, made.plan.serve.gpus) == ("tgi", 8)
    assert (made.plan.serve.revision, made.plan.serve.max_parallel) == (None, 64)
    assert made.plan.name.startswith("swarm-b-")
    sbatch = place / "sbatch"
    sbatch.write_text("")
    sbatch.chmod(0o755)
    slurm = set_up(plain, longest).cluster
    assert (slurm.kind, slurm.address) == ("slurm", "hostname")
    assert slurm.storage == place / "runs" / "fleets"
    monkeypatch.setenv("CCAI_CLUSTER", profile(place, name="mine"))
    assert set_up(plain, longest).cluster.name == "mine"
    assert set_up(FleetConfig(model="a/b", revision="v2"), longest).plan.serve.revision == "v2"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"instances": 0}, "instances"),
        ({"min_instances": 4}, "min_instances"),
        ({"inference_engine": "tgl"}, "engine"),
        ({"dtype": "half"}, "dtype"),
        ({"gpus": -1}, "gpus"),
        ({"max_length": 2}, "max_length"),
        ({"model": "--model"}, "must not begin with"),
        ({"name": "../up"}, "name"),
        ({"cluster": "nowhere"}, "Unknown cluster 'nowhere'"),
        ({"per_instance_max_parallel_requests": 0}, "max_parallel"),
    ],
)
def test_wrong_values_are_said_before_anything_starts(
    place: Path, changes: dict[str, Any], said: str
) -> None:
    wrong = FleetConfig(**{"cluster": "local", "slurm_template_path": "", **changes})
    with pytest.raises(ConfigError, match=said):
        Swarm(wrong)
    with pytest.raises(ConfigError, match="not str"):
        Swarm("a model")
    assert list(place.iterdir()) == []


def test_a_profiles_program_and_options_are_the_default(place: Path) -> None:
    fleet = json.dumps({"engine": "vllm", "executable": "/opt/vllm", "options": ["--x"]})
    own = {"cluster": profile(place, fleet=fleet), "slurm_template_path": "", "model": MODEL}
    serve = set_up(FleetConfig(inference_engine="vllm", **own), longest).plan.serve
    assert (serve.executable, serve.options) == ("/opt/vllm", ("--x",))
    mine = FleetConfig(inference_engine="vllm", executable="/my/vllm", options=["--y"], **own)
    serve = set_up(mine, longest).plan.serve
    assert (serve.executable, serve.options) == ("/my/vllm", ("--y",))
    serve = set_up(FleetConfig(inference_engine="transformers", **own), longest).plan.serve
    assert (serve.executable, serve.options, serve.max_parallel) == (None, (), 32)
