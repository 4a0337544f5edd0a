"""Find a model's weights, downloading them when needed.

model = find_model(site, "Qwen/Qwen2-0.5B-Instruct", fallback=True)
"""

from __future__ import annotations

from prefect.logging import get_run_logger

from ccai_core.models import ModelRef, resolve_model
from tasks.policy import retried_task
from tasks.site import Site


@retried_task(name="find-model", task_run_name="find {name}")
def find_model(site: Site, name: str, fallback: bool) -> ModelRef:
    """Resolve `name`; a substitution is said in the log and tagged in MLflow."""
    site.show("model", 0, 1, name, False)
    model = resolve_model(name, fallback)
    if model.notice:
        get_run_logger().warning(model.notice)
    site.run.tags({"model.requested": name, "model.identity": model.identity})
    found = model.name + (" (substituted)" if model.substituted else "")
    site.show("model", 1, 1, found, True)
    return model
