"""What can be sent to a job: a function that it will find by name, and arguments that pickle.

check_function(train)
"""

from __future__ import annotations

import pickle
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ccai_core.errors import ConfigError


def check_function(fn: Callable[..., Any]) -> None:
    """Let through only what a fresh interpreter finds again by its name.

    Raises:
        ConfigError: says why it cannot.
    """
    name = getattr(fn, "__qualname__", type(fn).__name__)
    if not isinstance(fn, types.FunctionType):
        problem = f"is a {type(fn).__name__}, not a function"
    elif fn.__module__ == "__main__":
        problem = "belongs to the program itself (__main__), which a job cannot import"
    elif "<" in name or "." in name:
        problem = "is a lambda, or defined inside another function or a class"
    elif getattr(sys.modules.get(fn.__module__), name, None) is not fn:
        problem = f"is not what {fn.__module__} calls by this name (something is wrapped round it)"
    else:
        return
    raise ConfigError(
        f"{name} cannot be submitted: it {problem}. Submit a plain function from the top level of "
        "an importable module."
    )


@contextmanager
def explain_pickling(fn: Callable[..., Any]) -> Iterator[None]:
    """Turn a failure to pickle the arguments of `fn` into an error that says what to do."""
    try:
        yield
    except (pickle.PicklingError, TypeError) as error:
        raise ConfigError(
            f"The arguments of {fn.__qualname__} cannot be sent to a job ({error}). "
            "Pass plain values, paths and configs; open files and clients inside the job."
        ) from error


def import_root(module: str) -> str | None:
    """Return the folder from which `module` was imported, None if every interpreter has it.

    The job unpickles its function by name. Uninstalled (`python -m flows.poc` in a checkout) that
    needs the checkout on the path; installed packages need nothing.
    """
    file = Path(sys.modules[module].__file__ or "").resolve()
    depth = module.count(".") + (file.name == "__init__.py")
    root = file.parents[depth]
    return None if root.name in {"site-packages", "dist-packages"} else str(root)
