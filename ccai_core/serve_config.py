"""Settings of the server, and how its command line is read.

config = parse_arguments(["--model", "embedded", "--port", "8000"])
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Literal, get_args, get_origin

from pydantic import Field

from ccai_core.config import Config, parse_config
from ccai_core.models import Device, Precision

DType = Literal["auto", "float32", "bfloat16", "float16"]
KEY_VARIABLE = "CCAI_API_KEY"

_PRECISIONS: dict[DType, Precision] = {
    "auto": "auto",
    "float32": "fp32",
    "bfloat16": "bf16",
    "float16": "fp16",
}


class ServeConfig(Config):
    """What the server serves, where, and how much at once."""

    model: str = Field(description="Folder, hub id (owner/name[@revision]) or 'embedded'.")
    served_name: str = Field("", description="Name that requests give; empty: the model's own.")
    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8000, ge=0, le=65_535, description="Port to listen on; 0: any free one.")
    device: Device = Field("auto", description="Where the model runs; auto: cuda, mps, cpu.")
    dtype: DType = Field("auto", description="Weights' precision; scoring wants float32.")
    batch_size: int = Field(32, ge=1, description="Most sequences computed together.")
    max_length: int | None = Field(
        None, ge=16, description="Context window in tokens; none: the model's own."
    )
    max_waiting: int = Field(
        1024, ge=1, description="Sequences that may wait beyond a batch; more are answered 429."
    )
    gather_ms: float = Field(
        20.0, ge=0, le=1000, description="A batch waits until nothing came for so long."
    )

    @property
    def precision(self) -> Precision:
        """The precision in the words of this project."""
        return _PRECISIONS[self.dtype]


_ABOUT = f"""\
Serve one chat model over HTTP as OpenAI does: /v1/chat/completions, /v1/completions (also to score
prompts), /v1/models, /health, /metrics. On CUDA, MPS or CPU; one process, one model.

  python -m ccai_core.serve --model embedded --port 8000
  curl http://127.0.0.1:8000/v1/chat/completions -H 'Content-Type: application/json' \\
    -d '{{"messages": [{{"role": "user", "content": "Hello"}}], "max_tokens": 32}}'

The API key is taken from the environment variable {KEY_VARIABLE}, never from the command line.
With one, every route but /health wants "Authorization: Bearer KEY". Without one, anybody who
reaches the port may ask. SIGTERM ends it after the calls in flight.
"""


def parse_arguments(arguments: Sequence[str] | None) -> ServeConfig:
    """Read a command line; --help and words that are no options end the program as argparse does.

    Raises:
        ConfigError: a value is not valid.
    """
    parser = argparse.ArgumentParser(
        prog="python -m ccai_core.serve",
        description=_ABOUT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    for name, field in ServeConfig.model_fields.items():
        choices = get_args(field.annotation) if get_origin(field.annotation) is Literal else None
        default = "" if field.default in (None, "") or field.is_required() else field.default
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            required=field.is_required(),
            default=argparse.SUPPRESS,
            metavar="|".join(choices) if choices else name.split("_")[-1].upper(),
            help=f"{field.description}{f' (default: {default})' if default != '' else ''}",
        )
    return parse_config(ServeConfig, vars(parser.parse_args(arguments)), "command line")
