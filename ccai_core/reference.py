"""Reference log-probabilities, computed once and kept: DPO compares with the model before training.

They depend on that model, its arithmetic and the tokens alone, so trials with other betas and
learning rates, other epochs and runs that were killed share them. Every process appends to a file
of its own, pair by pair; what was there is read by all. A line that a kill has torn is computed
again.

    kept = ReferenceCache(root, {"model": ref.identity, "precision": "fp32"})
    kept.get(pair_key(prompt, chosen, rejected))         # (log p_ref(chosen), log p_ref(rejected))
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import uuid
from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from ccai_core.errors import ArtifactError
from ccai_core.types import fingerprint

Both = tuple[float, float]


def pair_key(prompt: Sequence[int], chosen: Sequence[int], rejected: Sequence[int]) -> str:
    """Return the identity of a tokenised pair."""
    digest = hashlib.sha256()
    for ids in (prompt, chosen, rejected):
        digest.update(len(ids).to_bytes(8, "little"))
        digest.update(array("q", ids).tobytes())
    return digest.hexdigest()[:32]


class ReferenceCache:
    """Log-probabilities by pair, in a folder named by what they depend on."""

    def __init__(self, root: Path, identity: Mapping[str, Any]) -> None:
        """Open the folder and read what is known.

        Args:
            root: where the folders of all reference models are.
            identity: everything but the tokens that the numbers depend on.

        Raises:
            ArtifactError: it cannot be written.
        """
        self.folder = root / fingerprint(dict(identity))
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ArtifactError(f"{self.folder}: cannot be made ({error.strerror}).") from None
        self._known: dict[str, Both] = {}
        self._own: IO[str] | None = None
        self.read()

    def __len__(self) -> int:
        return len(self._known)

    def get(self, key: str) -> Both | None:
        """Return (chosen, rejected) in nats, or None where it is not known yet."""
        return self._known.get(key)

    def entries(self) -> dict[str, Both]:
        """Return all that is known."""
        return dict(self._known)

    def take(self, entries: Mapping[str, Both]) -> None:
        """Know what another process knows, without keeping it a second time."""
        self._known.update(entries)

    def read(self) -> None:
        """Take in what other processes have written meanwhile."""
        for file in sorted(self.folder.glob("*.jsonl")):
            for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
                if entry := _parse(line):
                    self._known.setdefault(*entry)

    def add(self, key: str, chosen: float, rejected: float) -> None:
        """Keep a pair's log-probabilities, safe from a kill of this process.

        Raises:
            ArtifactError: the disk is full.
        """
        self._known[key] = (chosen, rejected)
        try:
            if self._own is None:
                name = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}.jsonl"
                self._own = (self.folder / name).open("w", encoding="utf-8")
            self._own.write(json.dumps([key, chosen, rejected]) + "\n")
            self._own.flush()
        except OSError as error:
            raise ArtifactError(
                f"{self.folder}: cannot be written ({error.strerror}); what is there is kept."
            ) from None

    def forget(self) -> None:
        """Drop everything: the numbers turned out not to be this model's."""
        self.close()
        for file in self.folder.glob("*.jsonl"):
            file.unlink(missing_ok=True)
        self._known.clear()

    def close(self) -> None:
        """Let go of the file."""
        if self._own is not None:
            self._own.close()
            self._own = None


def _parse(line: str) -> tuple[str, Both] | None:
    try:
        key, chosen, rejected = json.loads(line)
        return str(key), (float(chosen), float(rejected))
    except (ValueError, TypeError):
        return None
