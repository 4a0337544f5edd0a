"""Settings of `python -m flows.stack`.

StackConfig(folder=Path("runs/stack"))
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from ccai_core.config import Config
from flows.config import PLAIN
from flows.serve_config import ServeConfig


class PlaceConfig(Config):
    """Which stack."""

    folder: Path = Field(
        Path("runs/stack"), description="Folder of the services: databases, logs, process ids."
    )


class StackConfig(PlaceConfig):
    """What `up` starts: all of it listens on this machine only."""

    prefect_port: int = Field(4200, ge=1, le=65535, description="Port of the Prefect UI and API.")
    mlflow_port: int = Field(5000, ge=1, le=65535, description="Port of the MLflow UI and API.")
    wait: float = Field(300, gt=0, description="Seconds to wait for the services before giving up.")
    serve: Annotated[ServeConfig, PLAIN] = Field(
        default=ServeConfig(), description="What is offered, and how much of it runs at a time."
    )


class DemoConfig(PlaceConfig):
    """What `demo` starts through the API."""

    deployment: str = Field("poc/quick", description="Deployment to start, as in the UI.")
    model: str = Field("embedded", description="Its field 'model'.")
    values: dict[str, str] = Field(
        {}, description="Further fields of its form and their values; groups by dots."
    )
    wait: float = Field(7200, gt=0, description="Seconds to follow it.")
