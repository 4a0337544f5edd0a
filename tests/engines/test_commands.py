"""Command lines and environments of the engines: data stays data, keys stay out of sight."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any, get_args

import pytest
from pydantic import ValidationError

from ccai_core.errors import ConfigError
from infra.cluster import Container, EngineName
from infra.engines import ServeSpec, engine
from infra.engines.container import wrap

NAMES: tuple[Any, ...] = get_args(EngineName)
KEY = "planted-key-0123456789"
NASTY = "org/x; touch /tmp/pwned $(id) `id` 'q' \"d\" & | > \\ * ~ {{x}} --flag"
IMAGES = {name: f"registry/{name}:1" for name in NAMES}


def make(name: Any, **changes: Any) -> ServeSpec:
    return ServeSpec(engine=name, **{"model": "org/model", **changes})


def words(name: Any, **changes: Any) -> list[str]:
    return engine(name).command(make(name, **changes), 8123)


@pytest.mark.parametrize("name", NAMES)
def test_each_engine_listens_on_loopback_and_takes_its_key_from_the_environment(name: Any) -> None:
    spec, adapter = make(name), engine(name)
    line = adapter.command(spec, 8123)
    assert adapter.name == name
    assert any("127.0.0.1" in word for word in line)
    assert any(word in ("8123", "--port=8123") for word in line)
    assert KEY in adapter.environment(spec, KEY).values()
    assert not any(KEY in word for word in line)
    assert not any("0.0.0.0" in word for word in line)


@pytest.mark.parametrize("runtime", ["none", "pyxis", "apptainer"])
@pytest.mark.parametrize("name", NAMES)
def test_metacharacters_are_data_within_one_word(name: Any, runtime: Any) -> None:
    changes: dict[str, Any] = {"model": NASTY, "served_name": NASTY, "options": (NASTY,)}
    if name != "llamacpp":
        changes["revision"] = NASTY
    container = Container(runtime=runtime, images=IMAGES)
    line = words(name, **changes, container=container)
    assert sum(NASTY in word for word in line) >= 3
    # As the operating system passes them on, not as we think it does:
    printed = subprocess.run(
        [sys.executable, "-c", "import sys; print('\\0'.join(sys.argv[1:]), end='')", *line],
        capture_output=True, text=True, check=True,
    ).stdout.split("\0")  # fmt: skip
    assert printed == line


@pytest.mark.parametrize("name", NAMES)
def test_what_is_asked_for_is_on_the_line(name: Any) -> None:
    line = " ".join(
        words(name, max_length=4096, max_parallel=8, served_name="kind", options=("--more",))
    )
    assert line.endswith("--more")
    assert "org/model" in line
    assert name == "tgi" or "kind" in line
    assert "4096" in line or name == "llamacpp"
    expected = {
        "tgi": "--max-concurrent-requests=8",
        "vllm": "--max-num-seqs=8",
        "sglang": "--max-running-requests=8",
        "transformers": "--batch-size=8",
        "llamacpp": "--parallel 8 --cache-prompt --jinja --n-gpu-layers 0 --ctx-size 32768",
    }
    assert expected[name] in line


@pytest.mark.parametrize(
    ("name", "expected"),
    [("tgi", "--num-shard=4"), ("vllm", "--tensor-parallel-size=4"), ("sglang", "--tp-size=4"),
     ("llamacpp", "--n-gpu-layers all")],
)  # fmt: skip
def test_gpus_become_tensor_parallel(name: Any, expected: str) -> None:
    assert expected in " ".join(words(name, gpus=4))


def test_vllm_is_started_by_its_program_or_by_its_module() -> None:
    assert words("vllm")[:3] == ["vllm", "serve", "org/model"]
    assert words("vllm", executable="/v/bin/vllm")[:2] == ["/v/bin/vllm", "serve"]
    module = words("vllm", executable="/v/bin/python")
    assert module[:4] == [
        "/v/bin/python", "-m", "vllm.entrypoints.openai.api_server", "--model=org/model",
    ]  # fmt: skip
    assert "--enable-prefix-caching" in module
    # Or a model's generation_config.json adds a top-k that nobody asked for.
    assert "--generation-config=vllm" in module
    shared = engine("vllm").environment(make("vllm", device="cpu", cpus=2), KEY)
    assert (shared["OMP_NUM_THREADS"], shared["VLLM_CPU_OMP_THREADS_BIND"]) == ("2", "nobind")


def test_vllm_on_cpus_reads_no_prompt_in_pieces() -> None:
    on_cpus = words("vllm", device="cpu", max_length=2048)
    assert {"--no-enable-chunked-prefill", "--max-num-batched-tokens=4096"} <= set(on_cpus)
    assert "--no-enable-chunked-prefill" not in words("vllm", device="cuda")


def test_our_own_server_gets_the_revision_with_the_name_of_the_model(tmp_path: Any) -> None:
    assert "--model=org/model@v1" in words("transformers", revision="v1")
    folder = str(tmp_path)
    assert f"--model={folder}" in words("transformers", revision="v1", model=folder)


def test_sglang_gets_its_key_inside_its_process(tmp_path: Any) -> None:
    package = tmp_path / "sglang"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "launch_server.py").write_text("import sys; print(__name__, sys.argv[1:3])")
    spec, adapter = make("sglang", executable=sys.executable), engine("sglang")
    environment = {**os.environ, **adapter.environment(spec, KEY), "PYTHONPATH": str(tmp_path)}
    got = subprocess.run(
        adapter.command(spec, 1), env=environment, capture_output=True, text=True, check=True
    )
    assert got.stdout.strip() == f"__main__ ['--api-key', '{KEY}']"


def test_two_tgi_of_one_machine_share_no_port_or_socket() -> None:
    adapter, spec = engine("tgi"), make("tgi")
    one, two = adapter.environment(spec, KEY), adapter.environment(spec, KEY)
    ports = [each[name] for each in (one, two) for name in ("MASTER_PORT", "PROMETHEUS_PORT")]
    assert len(set(ports)) == 4
    assert set(adapter.command(spec, 1)) ^ set(adapter.command(spec, 2)) >= {
        f"--shard-uds-path=/tmp/tgi-{os.getuid()}-1", f"--shard-uds-path=/tmp/tgi-{os.getuid()}-2",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("tgi", {"dtype": "float32"}, "float16 or bfloat16"),
        ("transformers", {"gpus": 2}, "one GPU"),
        ("llamacpp", {"dtype": "bfloat16"}, "from the GGUF file"),
    ],
)
def test_what_an_engine_cannot_do_is_refused(name: Any, changes: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        words(name, **changes)


def test_a_model_that_would_be_an_option_is_refused() -> None:
    for model in ("--trust-remote-code", "-m", "", "a\nb"):
        with pytest.raises(ValidationError, match="model"):
            make("vllm", model=model)


# --- containers -----------------------------------------------------------------------------------


def test_pyxis_starts_a_step_of_this_job_with_the_key_by_name() -> None:
    container = Container(runtime="pyxis", images=IMAGES, mounts=("/data:/data:ro", "/hf:/hf"))
    line = words("vllm", container=container, gpus=8, cpus=64)
    assert line[:3] == ["srun", "--overlap", "--mem=0"]
    assert "--cpus-per-task=64" in line
    assert "--container-image=registry/vllm:1" in line
    assert "--container-mounts=/data:/data:ro,/hf:/hf" in line
    assert "--no-container-mount-home" in line
    assert "--container-env=VLLM_NO_USAGE_STATS,VLLM_API_KEY" in line
    # Inside, a shell that only makes the engine deaf to Slurm's notice of the time limit.
    inside = line[line.index("sh") :]
    assert inside[:5] == ["sh", "-c", 'trap "" USR1 USR2; exec "$@"', "sh", "vllm"]


def test_an_engine_in_a_step_outlives_the_notice_of_a_time_limit(tmp_path: Any) -> None:
    container = Container(runtime="pyxis", images=IMAGES)
    noticed = "import os, signal; os.kill(os.getpid(), signal.SIGUSR2); print('on')"
    command = [sys.executable, "-c", noticed]
    line = wrap(container, "vllm", command, gpus=0, cpus=None, variables=())
    ran = subprocess.run(line[line.index("sh") :], capture_output=True, text=True)
    assert (ran.returncode, ran.stdout) == (0, "on\n")


def test_apptainer_binds_mounts_and_gets_the_key_by_its_environment() -> None:
    container = Container(runtime="apptainer", images=IMAGES, mounts=("/data:/data:ro", "/hf:/hf"))
    spec = make("tgi", container=container, gpus=4)
    line = engine("tgi").command(spec, 1)
    start = line[: line.index("text-generation-launcher")]
    assert start == [
        "apptainer", "exec", "--nv", "--bind", "/data:/data:ro", "--bind", "/hf:/hf",
        "registry/tgi:1",
    ]  # fmt: skip
    environment = engine("tgi").environment(spec, KEY)
    assert environment["APPTAINERENV_API_KEY"] == environment["API_KEY"] == KEY
    # What the host's Python finds must not reach the image's.
    assert (environment["PYTHONPATH"], environment["APPTAINERENV_PYTHONNOUSERSITE"]) == ("", "1")


def test_a_container_without_an_image_for_the_engine_is_refused() -> None:
    with pytest.raises(ValidationError, match="no image for the engine 'tgi'"):
        make("tgi", container=Container(runtime="pyxis", images={"vllm": "x"}))
