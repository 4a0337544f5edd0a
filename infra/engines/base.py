"""What an inference engine is to us: a command line, an environment, and what its API can do.

argv = engine(spec.engine).command(spec, port)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from ccai_core.config import Config
from infra.cluster import Container, EngineName, Line
from infra.engines.container import container_variables, wrap

Capability = Literal["seed", "stop", "logprobs", "grammar", "repetition_penalty", "scoring"]
"""What a chat request may ask for, under OpenAI's or this very name; `scoring` is the
log-probabilities of a prompt's own tokens (POST /v1/completions, token ids, echo, logprobs)."""


class ServeSpec(Config):
    """One model on one engine: all that its command line is made from."""

    engine: EngineName = Field(description="Inference engine.")
    model: Line = Field(min_length=1, description="Folder of the model, or its name on the hub.")
    served_name: Line = Field(
        "", description="Name under which it is served; empty: as `model` says."
    )
    revision: Line | None = Field(None, description="Commit, tag or branch on the hub.")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="Precision; auto: the engine's choice for the model."
    )
    device: Literal["auto", "cuda", "mps", "cpu"] = Field("auto", description="What it runs on.")
    gpus: int = Field(0, ge=0, le=64, description="GPUs of this instance (tensor parallel).")
    cpus: int | None = Field(None, ge=1, description="Processor cores; none: what there is.")
    max_length: int | None = Field(
        None, ge=16, description="Context window in tokens; none: the model's own."
    )
    max_parallel: int = Field(64, ge=1, description="Requests it works on at once.")
    executable: Line | None = Field(
        None, description="Path of the engine's program or Python; none: the one on PATH."
    )
    options: tuple[Line, ...] = Field((), description="Further words on its command line.")
    container: Container = Field(
        default=Container(), description="Runtime, images and mounts that it is wrapped in."
    )

    @model_validator(mode="before")
    @classmethod
    def _is_served_under_a_name(cls, values: object) -> object:
        if isinstance(values, Mapping) and not values.get("served_name"):
            return {**values, "served_name": values.get("model", "")}
        return values

    @model_validator(mode="after")
    def _is_startable(self) -> Self:
        # Not every engine's command line can tell a value from an option any other way.
        if self.model.startswith("-"):
            raise ValueError("model must not begin with '-'; write ./-name for such a folder")
        if self.container.runtime != "none" and self.engine not in self.container.images:
            raise ValueError(f"container.images has no image for the engine {self.engine!r}")
        return self


class Engine(ABC):
    """One kind of inference server. Holds no state: everything is in the `ServeSpec`."""

    name: ClassVar[EngineName]
    capabilities: ClassVar[frozenset[Capability]]
    key_variable: ClassVar[str]
    """Environment variable from which the server takes its API key."""
    listing: ClassVar[str] = "/v1/models"
    """Route that tells which model is served."""

    @abstractmethod
    def arguments(self, spec: ServeSpec, port: int) -> list[str]:
        """Return the bare command line, listening on 127.0.0.1:`port`; nothing secret in it.

        Raises:
            ConfigError: the engine cannot do what `spec` asks for.
        """

    def settings(self, spec: ServeSpec) -> dict[str, str]:
        """Return environment variables that this engine wants besides its key."""
        return {}

    def command(self, spec: ServeSpec, port: int) -> list[str]:
        """Return the words of the command (never a shell line), in its container if it has one.

        Raises:
            ConfigError: the engine cannot do what `spec` asks for.
        """
        return wrap(
            spec.container, spec.engine, self.arguments(spec, port), gpus=spec.gpus,
            cpus=spec.cpus, variables=[*self.settings(spec), self.key_variable],
        )  # fmt: skip

    def environment(self, spec: ServeSpec, api_key: str) -> dict[str, str]:
        """Return what to add to the environment of the command."""
        added = {**self.settings(spec), self.key_variable: api_key}
        return {**added, **container_variables(spec.container, added)}

    def model_name(self, spec: ServeSpec) -> str:
        """Return the name by which the server itself calls the model in its answers."""
        return spec.served_name

    def listed(self, answer: Any) -> set[str]:
        """Return the models that the answer of `listing` names."""
        return {str(each["id"]) for each in answer["data"]}

    def trial(self, spec: ServeSpec) -> tuple[str, dict[str, Any]]:
        """Return route and body of a one-token completion."""
        message = {"role": "user", "content": "Hi"}
        return "/v1/chat/completions", {
            "model": spec.served_name, "messages": [message], "max_tokens": 1,
        }  # fmt: skip

    def completed(self, answer: Any) -> bool:
        """Tell whether the answer to `trial` is a completion."""
        return isinstance(answer["choices"][0]["message"], dict)
