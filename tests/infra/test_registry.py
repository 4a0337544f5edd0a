"""Registered models in a real MLflow store: one version a model, and moves that can be undone."""

from __future__ import annotations

from pathlib import Path

import pytest

from ccai_core.errors import ConfigError
from infra.registry import Registry, Version


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a store for all tests here: MLflow takes seconds to make one."""
    return f"sqlite:///{tmp_path_factory.mktemp('store') / 'mlflow.db'}"


@pytest.fixture
def registry(store: str, request: pytest.FixtureRequest) -> Registry:
    return Registry(store, request.node.name)


def register(registry: Registry, identity: str, folder: Path) -> Version:
    return registry.register(folder, identity, {"base": "b@1"})


def test_the_same_weights_are_one_version_wherever_they_lie(
    registry: Registry, tmp_path: Path
) -> None:
    first = register(registry, "m@1", tmp_path / "here")
    again = register(registry, "m@1", tmp_path / "there")
    other = register(registry, "m@2", tmp_path / "there")
    assert (first.number, again.number, other.number) == ("1", "1", "2")
    assert again.path == tmp_path / "there"
    assert again.about["base"] == "b@1"


def test_an_alias_moves_and_comes_back(registry: Registry, tmp_path: Path) -> None:
    assert registry.holder("champion") is None
    one, two = (register(registry, f"m@{n}", tmp_path) for n in (1, 2))
    registry.move("champion", one.number, "the first")
    registry.move("champion", two.number, "better")
    # Promoted twice is moved once.
    registry.move("champion", two.number, "better")
    assert [each["why"] for each in registry.moves("champion")] == ["the first", "better"]
    assert registry.undo("champion") == one
    assert registry.undo("champion") is None
    assert registry.holder("champion") is None
    with pytest.raises(ConfigError, match="never moved"):
        registry.undo("champion")


def test_other_aliases_stay_where_they_are(registry: Registry, tmp_path: Path) -> None:
    one, two = (register(registry, f"m@{n}", tmp_path) for n in (1, 2))
    registry.move("champion", one.number, "first")
    registry.move("challenger", two.number, "second")
    assert registry.holder("champion") == one
    assert registry.holder("challenger") == two
