"""Registered models: versions of one model, and who of them is candidate, challenger, champion.

Weights are gigabytes and stay in their workspace: a version says where they are, what they were
made from and which evaluation speaks for them. Every move of an alias is kept and can be undone.

    registry = Registry("sqlite:///runs/poc/mlflow.db", "ccai")
    version = registry.register(Path("model"), identity="ccai@3f2a", about={"base": "SmolLM2@91…"})
    registry.move("champion", version.number, "met every criterion")
    registry.undo("champion")
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from ccai_core.errors import ConfigError
from infra import mlflow_store as store

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

Alias = Literal["candidate", "challenger", "champion"]

_MOVES = "ccai.moves"
# A tag holds 5000 characters; a move is about 150.
_MOVES_KEPT = 20


class Version(NamedTuple):
    """One registered version of the model."""

    number: str
    identity: str
    path: Path
    about: dict[str, str]
    """What it was registered with: its base, its evaluation, its MLflow run."""


class Registry:
    """The versions of one registered model."""

    def __init__(self, uri: str, name: str) -> None:
        """Open the registry at MLflow's `uri`; the model need not be there yet.

        Raises:
            ConfigError: the server does not answer, or the store cannot be used.
        """
        # To be shown, so without a password; the client has the whole of it.
        self.uri, self.name = store.shown(uri), store.clean_model_name(name)
        self._client = store.open_client(uri)

    def register(
        self, path: Path, identity: str, about: Mapping[str, str], run_id: str | None = None
    ) -> Version:
        """Register weights as the next version; those that are there already stay one version."""
        if known := self.find(identity):
            tags = {"path": str(path.resolve()), **store.clean_tags(about)}
            for key, value in tags.items():
                self._client.set_model_version_tag(self.name, known.number, key, value)
            return self._named(known.number)
        from mlflow.exceptions import MlflowException

        try:
            self._client.create_registered_model(self.name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        tags = {"identity": identity, "path": str(path.resolve()), **about}
        made = self._client.create_model_version(
            # MLflow refuses a path outside its own folders; this only names the weights.
            self.name,
            source=f"ccai:///{identity}",
            run_id=run_id,
            await_creation_for=0,
            tags=store.clean_tags(tags),
        )
        return _version(made)

    def find(self, identity: str) -> Version | None:
        """Return the version with these weights, if they are registered."""
        found = self._client.search_model_versions(f"name='{self.name}'")
        return next(
            (_version(each) for each in found if each.tags.get("identity") == identity), None
        )

    def holder(self, alias: Alias) -> Version | None:
        """Return who has the alias, if anybody has."""
        from mlflow.exceptions import MlflowException

        try:
            return _version(self._client.get_model_version_by_alias(self.name, alias))
        except MlflowException as error:
            if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                return None
            raise

    def move(self, alias: Alias, number: str, why: str) -> None:
        """Give the alias to a version, and remember who had it."""
        before = self.holder(alias)
        if before is not None and before.number == number:
            return
        moves = [
            *self.moves(alias),
            {
                "from": before.number if before else None,
                "to": number,
                "when": datetime.now(UTC).isoformat(timespec="seconds"),
                "why": why[:200],
            },
        ]
        self._client.set_registered_model_alias(self.name, alias, number)
        self._remember(alias, moves)

    def undo(self, alias: Alias) -> Version | None:
        """Take back the last move of the alias; returns who has it now.

        Raises:
            ConfigError: it was never moved.
        """
        moves = self.moves(alias)
        if not moves:
            raise ConfigError(f"The alias {alias!r} of {self.name!r} was never moved.")
        before = moves.pop()["from"]
        if before is None:
            self._client.delete_registered_model_alias(self.name, alias)
        else:
            self._client.set_registered_model_alias(self.name, alias, before)
        self._remember(alias, moves)
        return self.holder(alias)

    def moves(self, alias: Alias) -> list[dict[str, Any]]:
        """Return every move of the alias that is remembered, the last one last."""
        from mlflow.exceptions import MlflowException

        try:
            tags = self._client.get_registered_model(self.name).tags
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return []
            raise
        moves: list[dict[str, Any]] = json.loads(tags.get(f"{_MOVES}.{alias}", "[]"))
        return moves

    def _remember(self, alias: Alias, moves: list[dict[str, Any]]) -> None:
        text = json.dumps(moves[-_MOVES_KEPT:])
        self._client.set_registered_model_tag(self.name, f"{_MOVES}.{alias}", text)

    def _named(self, number: str) -> Version:
        return _version(self._client.get_model_version(self.name, number))


def _version(found: ModelVersion) -> Version:
    tags = dict(found.tags)
    return Version(str(found.version), tags.pop("identity", ""), Path(tags.pop("path", "")), tags)
