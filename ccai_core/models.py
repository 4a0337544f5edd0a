"""Find and load a causal chat model: from the hub, a local folder, or the embedded SmolLM2-135M.

A model is *resolved* once (which weights, which revision) and then loaded as often as needed. When
the hub cannot be reached and nothing is cached, the embedded model stands in and the ModelRef
says so.

    ref = resolve_model("Qwen/Qwen2-0.5B-Instruct")
    model, tokenizer = load_model(ref, device="auto")
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from ccai_core.config import Config
from ccai_core.embedded import EMBEDDED_MODEL, EMBEDDED_NAMES, embedded_weights, has_weights, sha256
from ccai_core.errors import ModelError
from ccai_core.hub import HubUnreachableError, find_on_hub
from ccai_core.types import fingerprint

DEFAULT_MODEL = "Qwen/Qwen2-0.5B-Instruct"
# What decides how a model in a folder behaves, and so is part of its content hash.
_IDENTITY_FILES = (
    "config.json", "generation_config.json", "*.safetensors", "*.model", "tokenizer*",
    "chat_template*", "special_tokens_map.json", "added_tokens.json", "vocab*", "merges.txt",
)  # fmt: skip

Device = Literal["auto", "cuda", "mps", "cpu"]
Precision = Literal["auto", "fp32", "fp16", "bf16"]


class ModelRef(Config):
    """Which weights exactly. `path` and `requested` are not part of the identity."""

    name: str = Field(description="Hub id, or the folder's name for local weights.")
    revision: str = Field(description="Hub commit, or a content hash for local weights.")
    path: Path = Field(description="Folder with config, tokenizer and safetensors.")
    requested: str = Field(description="What the user asked for.")
    substituted: bool = Field(False, description="True when the embedded model stands in.")

    @property
    def identity(self) -> str:
        """name@revision, the model's part of every call key and fingerprint."""
        return f"{self.name}@{self.revision}"

    @property
    def notice(self) -> str | None:
        """What a reader of any result must know about a substitution."""
        if not self.substituted:
            return None
        return (
            f"The hub was unreachable and {self.requested} is not cached: everything here was made "
            f"with the embedded {self.name} instead."
        )


def resolve_model(name: str, fallback: bool = True) -> ModelRef:
    """Find the weights of `name`: local folder, embedded, the hub (`owner/name`, `…@revision`).

    Raises:
        ModelError: no such folder or hub model, no safetensors in it, or the hub is unreachable
            with nothing cached while `fallback` is False.
    """
    if not name.strip():
        raise ModelError(
            "--model is empty; give a hub id such as Qwen/Qwen2-0.5B-Instruct or a folder."
        )
    if name.lower() in EMBEDDED_NAMES:
        return _embedded(name)
    folder = Path(os.path.expanduser(name))  # noqa: PTH111 - Path's raises for an unknown ~user
    if folder.is_dir():
        return _local(folder, name)
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise ModelError(f"--model {name}: there is no such folder.")
    return _from_hub(name, fallback)


def _from_hub(name: str, fallback: bool) -> ModelRef:
    try:
        repository, path = find_on_hub(name)
    except HubUnreachableError as error:
        if fallback:
            return _embedded(name).model_copy(update={"substituted": True})
        raise ModelError(
            f"--model {name}: the hub cannot be reached and the model is not cached ({error}), and "
            "--no-fallback forbids the embedded model. Connect, download it once, name a local "
            "folder, or drop --no-fallback."
        ) from None
    return ModelRef(name=repository, revision=path.name[:12], path=path, requested=name)


def _embedded(requested: str) -> ModelRef:
    revision, path = embedded_weights()
    return ModelRef(name=EMBEDDED_MODEL, revision=revision, path=path, requested=requested)


def _local(folder: Path, requested: str) -> ModelRef:
    if not has_weights(folder):
        raise ModelError(
            f"{folder}: is not a model folder: it needs config.json and *.safetensors "
            "(pickled .bin weights are not loaded)."
        )
    files = sorted({file for pattern in _IDENTITY_FILES for file in folder.glob(pattern)})
    content = [(f.name, f.stat().st_size, sha256(f)) for f in files if f.is_file()]
    return ModelRef(
        name=folder.resolve().name,
        revision=fingerprint(content, 12),
        path=folder.resolve(),
        requested=requested,
    )


def pick_device(device: Device = "auto") -> str:
    """Return the device to use: auto takes cuda, then mps, then cpu.

    Raises:
        ModelError: the named device is not there.
    """
    import torch

    here = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if device == "auto":
        return next(name for name, there in here.items() if there)
    if not here[device]:
        there = ", ".join(name for name, ok in here.items() if ok)
        raise ModelError(f"--device {device}: this machine has none. Available: {there}.")
    return device


def pick_dtype(precision: Precision, device: str) -> Any:
    """Return the torch dtype for inference unless it is named.

    bf16 where the device computes it, else fp16 on GPUs and fp32 on CPUs: one without AVX-512 takes
    seven times as long for bf16 as for fp32, and one with it a third.
    """
    import torch

    named = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
    if precision != "auto":
        return named[precision]
    if device == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    if device == "cpu":
        return torch.bfloat16 if _cpu_computes_bf16() else torch.float32
    return torch.float16


def _cpu_computes_bf16() -> bool:
    import torch

    there: Any = torch.backends.mkldnn
    # PyTorch's own question before it hands bf16 to oneDNN; there is no public one.
    return bool(there.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _load_errors() -> tuple[type[Exception], ...]:
    """Return what transformers raises for files that are missing, damaged or of another kind."""
    from huggingface_hub.errors import StrictDataclassError
    from safetensors import SafetensorError

    usual = (OSError, ValueError, KeyError, TypeError, RuntimeError, ImportError)
    return (*usual, SafetensorError, StrictDataclassError)


def load_tokenizer(ref: ModelRef) -> Any:
    """Load the tokenizer and make sure that it can chat and pad.

    Raises:
        ModelError: the model has no chat template.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(str(ref.path), trust_remote_code=False)
    except _load_errors() as error:
        raise ModelError(
            f"{ref.name}: its tokenizer cannot be loaded ({_first_line(error)})."
        ) from None
    if not tokenizer.chat_template:
        raise ModelError(
            f"{ref.name}: has no chat template, so it is no chat model. Take its Instruct variant."
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def context_window(ref: ModelRef) -> int:
    """Return how many tokens the model can read and write together, 2048 where it does not say.

    Raises:
        ModelError: its config.json cannot be read.
    """
    try:
        config = json.loads((ref.path / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{ref.name}: {ref.path / 'config.json'} is not readable ({error})."
        ) from None
    # Models that also see keep what concerns text in a part of its own.
    text = config.get("text_config") or config
    return int(text.get("max_position_embeddings") or text.get("n_positions") or 2048)


def load_model(ref: ModelRef | str, device: Device = "auto", precision: Precision = "auto") -> Any:
    """Load weights and tokenizer in evaluation mode on a device.

    Returns:
        (model, tokenizer), both of transformers.

    Raises:
        ModelError: the folder is damaged, not a causal model, or does not fit.
    """
    if isinstance(ref, str):
        ref = resolve_model(ref)
    tokenizer = load_tokenizer(ref)
    where = pick_device(device)
    model = _load_weights(ref, pick_dtype(precision, where))
    try:
        return model.to(where).eval(), tokenizer
    except RuntimeError as error:
        raise ModelError(
            f"{ref.name}: does not fit on {where} ({_first_line(error)}). Take a smaller model, a "
            "lower --precision, or --device cpu."
        ) from None


def _load_weights(ref: ModelRef, dtype: Any) -> Any:
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging as notices

    # Mostly this runs in a job, whose log is a file: a bar in it is noise.
    notices.disable_progress_bar()
    try:
        model, report = AutoModelForCausalLM.from_pretrained(
            str(ref.path),
            dtype=dtype,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
        )
    except _load_errors() as error:
        raise ModelError(
            f"{ref.name}: cannot be loaded from {ref.path} ({_first_line(error)}). If it is a chat "
            "model, its files are damaged: remove the folder and get it again."
        ) from None
    if missing := sorted(report["missing_keys"]):
        # transformers would make them up at random and only warn.
        raise ModelError(
            f"{ref.name}: {len(missing)} of its weights are missing in {ref.path} (first: "
            f"{missing[0]}). Remove the folder and get the whole model again."
        )
    return model


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
