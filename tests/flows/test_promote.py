"""A finished proof of concept and the registry: refused, forced, taken back, watched at night."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from ccai_core.errors import ConfigError, DataError
from ccai_core.nights import History
from flows.nightly_config import NightlyConfig
from flows.nightly_night import due
from flows.nightly_run import run_nightly
from flows.promote_config import PromoteConfig
from flows.promote_steps import plan_promotion, run_promotion
from infra.registry import Registry


@pytest.fixture
def store(finished: Any, tmp_path: Path) -> str:
    # MLflow takes seconds to make a store; this one knows nothing of registered models.
    shutil.copy(finished.workspace / "mlflow.db", tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


def promotion(finished: Any, store: str, **values: Any) -> PromoteConfig:
    (folder,) = (finished.workspace / "artifacts").glob("evaluation-*")
    return PromoteConfig(**{"evaluation": folder, "tracking_uri": store, **values})


def test_a_model_that_is_not_shown_to_be_better_stays_candidate(finished: Any, store: str) -> None:
    config = promotion(finished, store)
    assert "NOT" in plan_promotion(config)
    with pytest.raises(DataError, match=r"(?s)stays candidate.*better in one of.*--override"):
        run_promotion(config)
    registry = Registry(store, "ccai")
    assert registry.holder("champion") is None
    candidate = registry.holder("candidate")
    assert candidate is not None
    assert candidate.path.parent.name.startswith("training-")


def test_who_knows_better_says_why_and_can_take_it_back(finished: Any, store: str) -> None:
    run_promotion(promotion(finished, store, override="a trial of the tests"))
    registry = Registry(store, "ccai")
    assert registry.moves("champion")[-1]["why"] == "override: a trial of the tests"
    back = PromoteConfig(undo=True, tracking_uri=store)
    assert "a trial of the tests" in plan_promotion(back)
    run_promotion(back)
    assert registry.holder("champion") is None


def test_an_evaluation_speaks_for_its_own_model_only(
    finished: Any, store: str, tmp_path: Path
) -> None:
    changed = tmp_path / "model"
    shutil.copytree(Path(finished.values["model"]), changed)
    with pytest.raises(DataError, match=r"the evaluation is of"):
        run_promotion(promotion(finished, store, trained=changed))
    with pytest.raises(DataError, match="no finished evaluation"):
        run_promotion(promotion(finished, store, evaluation=tmp_path))


def nightly(finished: Any, store: str, tmp_path: Path, **values: Any) -> NightlyConfig:
    shared = {key: finished.values[key] for key in ("constitution", "device", "model")}
    return NightlyConfig(
        **{
            **shared,
            "workspace": tmp_path / "nightly",
            "tracking_uri": store,
            "evaluation": finished.values["evaluation"],
            "scenarios": True,
            **values,
        }
    )


def test_without_a_champion_the_night_says_what_to_do(
    finished: Any, store: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"flows\.promote"):
        run_nightly(nightly(finished, store, tmp_path))


@pytest.mark.slow
def test_a_real_night_is_measured_once_and_against_its_own_base(
    finished: Any, store: str, tmp_path: Path
) -> None:
    from flows.nightly import nightly as flow

    run_promotion(promotion(finished, store, override="a trial of the tests"))
    config = nightly(finished, store, tmp_path, measures=("safety.safe_rate",))
    with pytest.raises(ConfigError, match=r"was made from .*--model embedded is"):
        flow(config.model_copy(update={"model": "embedded"}))
    summary = flow(config)
    assert "not judged yet" in summary.findings[0]
    history = History(Path(summary.made["history"]))
    night = history.measured(due(config, datetime.now(UTC)), "champion")
    assert night is not None
    # Four of the core, four of the night's own.
    assert night.measures["safety.safe_rate"].n <= 8
    assert Path(summary.made["trend"]).exists()
    assert "measured already" in flow(config).findings[0]
    assert flow(config.model_copy(update={"again": True})).findings != ()
