"""Weights from the hub: what is wrong said plainly, and no hanging where it cannot be reached.

repository, folder = find_on_hub("Qwen/Qwen2-0.5B-Instruct")
"""

from __future__ import annotations

import logging
from pathlib import Path

from ccai_core.embedded import has_weights
from ccai_core.errors import ModelError

log = logging.getLogger(__name__)

_WEIGHT_FILES = ("*.safetensors", "*.json", "*.txt", "*.jinja", "*.model")
# Of a hub that does not answer (a firewall that swallows packets), per connection and per answer.
_HUB_TIMEOUT_S = 10.0


class HubUnreachableError(ModelError):
    """The hub does not answer, and the model is not cached."""


def find_on_hub(name: str) -> tuple[str, Path]:
    """Return repository and snapshot folder of `owner/name` or `owner/name@revision`.

    Raises:
        HubUnreachableError: another model may stand in.
        ModelError: it is unknown, gated, without safetensors, or cannot be stored.
    """
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    repository, _, revision = name.partition("@")
    try:
        path = _download(repository, revision or None)
    except HFValidationError:
        raise ModelError(
            f"--model {name!r}: is neither a folder nor a hub id (owner/name)."
        ) from None
    except GatedRepoError:
        raise ModelError(
            f"--model {name}: is gated. Accept its licence on its hub page, then set HF_TOKEN."
        ) from None
    except RepositoryNotFoundError:
        raise ModelError(
            f"--model {name}: the hub has no such model, or it is private and HF_TOKEN may not "
            "read it. Check the spelling (owner/name)."
        ) from None
    except RevisionNotFoundError:
        raise ModelError(
            f"--model {name}: {repository} has no revision {revision!r}. Give a branch, tag or "
            "commit of its hub page, or none."
        ) from None
    except (_http_error(), LocalEntryNotFoundError, ConnectionError, TimeoutError) as error:
        raise HubUnreachableError(type(error).__name__) from None
    except OSError as error:
        raise ModelError(
            f"--model {name}: cannot be stored ({error.strerror or error}). Make room "
            "in the hub's cache, or set HF_HOME to another disk."
        ) from None
    if not has_weights(path):
        raise ModelError(
            f"--model {name}: has no safetensors weights for transformers (pickled .bin and GGUF "
            "weights are not loaded). Take a variant that has, or convert it into a folder."
        )
    return repository, path


def _download(repository: str, revision: str | None) -> Path:
    """Return the snapshot's folder; without the hub, that of a complete cached copy."""
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import (
        IncompleteSnapshotError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    patterns = list(_WEIGHT_FILES)
    try:
        # snapshot_download asks this without a time-out, which hangs behind some firewalls.
        commit = HfApi().model_info(repository, revision=revision, timeout=_HUB_TIMEOUT_S).sha
    except (RepositoryNotFoundError, RevisionNotFoundError):
        raise
    except (_http_error(), OSError) as error:
        try:
            path = snapshot_download(
                repository, revision=revision, allow_patterns=patterns, local_files_only=True
            )
        except IncompleteSnapshotError:
            log.warning("%s: the cached copy is incomplete and is not used", repository)
            raise error from None
        except LocalEntryNotFoundError:
            raise error from None
    else:
        path = snapshot_download(
            repository, revision=commit, allow_patterns=patterns, etag_timeout=_HUB_TIMEOUT_S
        )
    return Path(path)


def _http_error() -> type[Exception]:
    """Return the base of what the hub client's HTTP library raises, whichever library that is."""
    from huggingface_hub import errors

    base: type[Exception] = errors.HTTPError  # type: ignore[attr-defined]
    return base
