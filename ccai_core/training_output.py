"""The folder of one training run: names every path in it once, and keeps what is there trustworthy.

- request.json: what is trained on what; a folder holds one training run
- checkpoints/checkpoint-<step>: resumable points (see ccai_core.checkpoints)
- training_log.jsonl: a line for every step and evaluation (see ccai_core.training_log)
- training_curve.svg: loss, margin and accuracy
- model/: the trained model, loadable by plain transformers
- training.json: the TrainingResult; there only once everything else is

    with RunFolder(out).lock() as folder:
        folder.claim({"learning_rate": 1e-6})
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock, Timeout
from pydantic import ValidationError

from ccai_core.errors import ArtifactError, ModelError
from ccai_core.files import write_whole
from ccai_core.models import ModelRef, resolve_model
from ccai_core.training_config import TrainedModel
from ccai_core.types import fingerprint

R = TypeVar("R", bound=TrainedModel)

_SCRATCH = ".model-"
# torch.save does not say what kept it from writing, only where in its source it noticed.
_DISK_FULL = ("no space left", "disk quota", "inline_container.cc")


class RunFolder:
    """Paths and guarded writes of one training run's folder."""

    def __init__(self, root: Path, layout: str = "") -> None:
        """Refer to the folder; `layout` keeps apart checkpoints that do not fit each other."""
        self.root = root.expanduser().resolve()
        self.checkpoints = self.root / "checkpoints" / layout
        self.log = self.root / "training_log.jsonl"
        self.curve = self.root / "training_curve.svg"
        self.model = self.root / "model"
        self.result = self.root / "training.json"
        self.request = self.root / "request.json"

    @contextmanager
    def lock(self) -> Iterator[RunFolder]:
        """Hold the folder for this process alone; a killed holder lets go by itself.

        Raises:
            ArtifactError: another process trains into it, or it cannot be written.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            # An older copy of this job that was asked to leave may still be saving.
            patience = float(os.environ.get("CCAI_LEAVE_SECONDS", 0))
            held = FileLock(self.root / ".lock", timeout=patience)
            held.acquire()
        except Timeout:
            raise ArtifactError(
                f"{self.root}: another process is training into it; wait for it or stop it."
            ) from None
        except OSError as error:
            raise ArtifactError(f"{self.root}: cannot be written ({error.strerror}).") from None
        try:
            yield self
        finally:
            held.release()

    def claim(self, inputs: Mapping[str, Any]) -> None:
        """Note what this folder's run is made from, or check that it still is the same.

        Raises:
            ArtifactError: the folder holds a run of other inputs; names what differs.
        """
        # Through JSON and back, so that a value compares as it was stored.
        now = json.loads(json.dumps(dict(inputs)))
        if not self.request.exists():
            write_whole(self.request, json.dumps(now, indent=2) + "\n")
            return
        try:
            then = json.loads(self.request.read_text(encoding="utf-8"))
            keys = [k for k in sorted(now | then) if now.get(k) != then.get(k)]
        except (ValueError, TypeError):
            raise ArtifactError(f"{self.request}: is damaged. Take a new output folder.") from None
        if keys:
            changes = ", ".join(f"{k} was {then.get(k)!r}, is {now.get(k)!r}" for k in keys)
            raise ArtifactError(
                f"{self.root}: holds another training run ({changes}). Take a new output folder."
            )

    def finished(
        self, kind: type[R], inputs: Mapping[str, Any], tell: Callable[[str], None]
    ) -> R | None:
        """Return the result of these very inputs, if its model is there as it was written."""
        try:
            result = kind.model_validate_json(self.result.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (ValidationError, UnicodeDecodeError):
            tell(f"Warning: {self.result} is damaged; the model is made again.")
            return None
        if result.inputs != fingerprint(inputs):
            return None
        try:
            here = resolve_model(str(self.model))
        except ModelError as error:
            tell(f"Warning: {error} It is made again.")
            return None
        if here.revision != result.model.revision:
            tell(f"Warning: {self.model} is not as it was written; it is made again.")
            return None
        # The folder may have been moved since.
        moved = result.model.model_copy(update={"path": here.path, "requested": here.requested})
        return result.model_copy(update={"model": moved, "model_path": here.path})

    def save_model(self, name: str, save: Callable[[Path], None]) -> ModelRef:
        """Let `save` write a model into a folder that appears as `model/` only when it is whole."""
        for left_over in self.root.glob(f"{_SCRATCH}*"):
            shutil.rmtree(left_over)
        scratch = Path(tempfile.mkdtemp(prefix=_SCRATCH, dir=self.root))
        save(scratch)
        for file in scratch.iterdir():
            # safetensors are written for their owner alone; a trained model is there to be shared.
            file.chmod(0o644)
            with file.open("rb") as opened:
                os.fsync(opened.fileno())
        scratch.chmod(0o755)
        if self.model.exists():
            shutil.rmtree(self.model)
        scratch.rename(self.model)
        return resolve_model(str(self.model)).model_copy(update={"name": name})

    def finish(self, result: TrainedModel) -> None:
        """Write training.json: from here on the run counts as done."""
        write_whole(self.result, result.model_dump_json(indent=2) + "\n")


def is_disk_full(error: Exception) -> bool:
    """Whether an exception of Python, safetensors or torch means that a disk or quota is full."""
    return any(words in str(error).lower() for words in _DISK_FULL)


def tell(line: str) -> None:
    """Print a line of a run's output at once: it is a file that somebody follows."""
    print(line, flush=True)
