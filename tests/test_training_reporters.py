"""Services that follow a training beside MLflow."""

from __future__ import annotations

import pytest
from pydantic import ValidationError
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

from ccai_core import training_reporters
from ccai_core.errors import ConfigError
from ccai_core.training_config import TrainingConfig
from ccai_core.training_reporters import check_reporters


def test_each_is_one_that_the_trainer_knows() -> None:
    assert training_reporters._PACKAGES.keys() <= INTEGRATION_TO_CALLBACK.keys()


def test_an_unknown_one_is_refused() -> None:
    with pytest.raises(ValidationError, match="wandb"):
        TrainingConfig.model_validate({"report_to": ["wandbb"]})


def test_one_that_is_not_installed_is_refused_with_the_way_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    there: set[str] = set()
    monkeypatch.setattr(training_reporters, "find_spec", lambda name: name in there or None)
    with pytest.raises(ConfigError, match=r"pip install comet-ml"):
        check_reporters(["comet_ml"])
    there.add("tensorboardX")
    check_reporters(["tensorboard"])
    check_reporters([])
