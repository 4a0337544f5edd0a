"""Does a release load in an engine, and does it write there what it writes with transformers?

Each engine runs in a process of its own, by whatever Python has it, and without a line of this
project. What it writes first must be among the tokens that plain transformers finds likeliest:
a model that was converted or laid out wrongly writes something else.

    reference = ask("transformers", Path("release"), SmokeConfig())
    found = ask("vllm", Path("release"), SmokeConfig(python=Path("vllm-env/bin/python")), reference)
    found.first in reference.likely
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from ccai_core.config import Config
from ccai_core.errors import ConfigError, EngineError

EngineName = Literal["transformers", "vllm", "llamacpp"]

_PREAMBLE = """\
import json, sys
folder, prompt, ids, tokens, out = sys.argv[1:6]
ids, tokens = json.loads(ids), int(tokens)
def done(**values):
    with open(out, "w", encoding="utf-8") as file:
        json.dump(values, file)
"""
_SCRIPTS: dict[EngineName, str] = {
    "transformers": """\
import torch, transformers
tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
model = transformers.AutoModelForCausalLM.from_pretrained(folder)
text = tokenizer.apply_chat_template(
    [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True
)
ids = tokenizer(text, add_special_tokens=False)["input_ids"]
batch = torch.tensor([ids])
with torch.no_grad():
    best = model(batch).logits[0, -1].topk(5).indices.tolist()
written = model.generate(batch, max_new_tokens=tokens, do_sample=False)[0][len(ids):].tolist()
done(version=transformers.__version__, prompt=text, ids=ids, likely=best, first=written[0],
     text=tokenizer.decode(written, skip_special_tokens=True))
""",
    "vllm": """\
import vllm
if __name__ == "__main__":
    llm = vllm.LLM(model=folder, enforce_eager=True, max_model_len=len(ids) + tokens + 16)
    sampling = vllm.SamplingParams(temperature=0, max_tokens=tokens)
    answer = llm.generate([{"prompt_token_ids": ids}], sampling)[0].outputs[0]
    done(version=vllm.__version__, prompt=prompt, ids=ids, first=answer.token_ids[0],
         text=answer.text)
""",
    "llamacpp": """\
import urllib.request
import xllamacpp
settings = xllamacpp.CommonParams()
settings.model.path, settings.n_ctx, settings.n_parallel = folder, len(ids) + tokens + 16, 1
settings.port = 0
server = xllamacpp.Server(settings)
def post(path, **values):
    body = json.dumps(values).encode()
    kind = {"Content-Type": "application/json"}
    request = urllib.request.Request(server.listening_address + path, body, kind)
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)
own = post("/tokenize", content=prompt, add_special=False, parse_special=True)["tokens"]
answer = post("/completion", prompt=own, n_predict=tokens, temperature=0, return_tokens=True)
done(version=xllamacpp.__version__, prompt=prompt, ids=own, first=answer["tokens"][0],
     text=answer["content"])
""",
}
# A first look on a CPU must not take all of its memory, nor start further processes.
_ENVIRONMENT = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_ENABLE_V1_MULTIPROCESSING": "0"}


class SmokeConfig(Config):
    """How a release is tried."""

    python: Path | None = Field(
        None,
        description="A Python that has the engine (llamacpp: xllamacpp, and what the converter "
        "needs); unset: the one that runs this.",
    )
    converter: Path | None = Field(
        None, description="llama.cpp's convert_hf_to_gguf.py, which llamacpp needs."
    )
    prompt: str = Field(
        "Say hello in one sentence.", min_length=1, description="What the model is asked."
    )
    tokens: int = Field(16, ge=1, le=512, description="Most tokens of the answer.")
    minutes: float = Field(15, gt=0, description="Time for loading and answering.")


class Smoke(Config):
    """What came back."""

    version: str = Field(description="Of the engine.")
    prompt: str = Field(description="What it was asked, with the chat template.")
    ids: tuple[int, ...] = Field(description="The same as tokens.")
    first: int = Field(description="The first token of the answer.")
    likely: tuple[int, ...] = Field((), description="The likeliest first tokens; of transformers.")
    text: str = Field(description="The answer.")


def ask(
    engine: EngineName, folder: Path, config: SmokeConfig, reference: Smoke | None = None
) -> Smoke:
    """Load a release in an engine and let it answer, greedily.

    Args:
        engine: which.
        folder: the release.
        config: what to ask, and where the engine is.
        reference: what transformers said; other engines are asked the same tokens.

    Raises:
        ConfigError: llamacpp is asked without a converter.
        EngineError: it is not there, cannot load the release, or takes too long.
    """
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        model = folder.resolve()
        if engine == "llamacpp":
            model = _converted(model, config, place)
        script, out = place / "ask.py", place / "out.json"
        script.write_text(_PREAMBLE + _SCRIPTS[engine], encoding="utf-8")
        prompt = reference.prompt if reference else config.prompt
        ids = json.dumps(reference.ids if reference else [])
        python = (
            sys.executable if engine == "transformers" else str(config.python or sys.executable)
        )
        words = [python, str(script), str(model), prompt, ids, str(config.tokens), str(out)]
        _run(words, f"{folder}: {engine}", config)
        try:
            return Smoke.model_validate_json(out.read_text(encoding="utf-8"))
        except (OSError, ValidationError) as error:
            raise EngineError(f"{folder}: {engine} ended without an answer ({error}).") from None


def _converted(folder: Path, config: SmokeConfig, place: Path) -> Path:
    """Return the release as one GGUF file, made by llama.cpp's own converter."""
    if config.converter is None or not config.converter.is_file():
        raise ConfigError(
            "--converter: name convert_hf_to_gguf.py of a checkout of llama.cpp. (The source "
            "archive of llama-cpp-python has it too, in vendor/llama.cpp.)"
        )
    made = place / "model.gguf"
    python = str(config.python or sys.executable)
    words = [python, str(config.converter.resolve()), str(folder), "--outtype", "f32"]
    _run([*words, "--outfile", str(made)], f"{folder}: llama.cpp's converter", config)
    return made


def _run(words: list[str], what: str, config: SmokeConfig) -> None:
    try:
        done = subprocess.run(  # noqa: S603 (named by the user, no shell)
            words,
            check=False,
            capture_output=True,
            text=True,
            timeout=60 * config.minutes,
            env=_ENVIRONMENT | os.environ,
        )
    except OSError as error:
        raise EngineError(
            f"{what}: {words[0]} cannot be started ({error.strerror}). Name the Python that has "
            "the engine with --python."
        ) from None
    except subprocess.TimeoutExpired:
        raise EngineError(
            f"{what}: took longer than {config.minutes:g} minutes. Allow more with --minutes."
        ) from None
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip() or "nothing").splitlines()[-1]
        raise EngineError(
            f"{what}: failed with {done.returncode}: {last:.300}. Name the Python that has the "
            "engine with --python."
        )
