"""Services that follow a training beside MLflow, through the callbacks that TRL's trainer has.

check_reporters(config.report_to)      # ConfigError before anything is loaded
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

from ccai_core.errors import ConfigError
from ccai_core.training_config import Reporter

# What each service's callback imports, one of which has to be there.
_PACKAGES: dict[Reporter, tuple[str, ...]] = {
    "clearml": ("clearml",),
    "comet_ml": ("comet_ml",),
    "swanlab": ("swanlab",),
    "tensorboard": ("tensorboard", "tensorboardX"),
    "trackio": ("trackio",),
    "wandb": ("wandb",),
}


def check_reporters(names: Sequence[Reporter]) -> None:
    """Check that the services can be reported to from here; nothing is imported.

    Raises:
        ConfigError: a service's package is not installed.
    """
    for name in names:
        packages = _PACKAGES[name]
        if not any(find_spec(package) for package in packages):
            raise ConfigError(
                f"report_to {name}: its package is not installed here. Install it (pip install "
                f"{packages[0].replace('_', '-')}) or leave it out of report_to."
            )
