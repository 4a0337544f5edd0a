r"""The lines of a journal file: one finished call each, checksummed.

0f3c9a12 ["completion","<key>",{"text": ...}]
7be1d004 ["scores","<key>",{"values": [-1.5, -0.2], ...}]

for line, record in read_lines(path):       # record is None where a line is damaged
    ...
"""

from __future__ import annotations

import json
import os
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from ccai_core.config import Config
from ccai_core.types import Completion


class Scores(Config):
    """Log-probabilities that a model gave: to fixed answers, or to one text."""

    values: tuple[float, ...] = Field(description="In nats; one an option, or one for the text.")
    tokens: int = Field(0, ge=0, description="Predicted tokens of a text; 0 for options.")
    model: str = Field("", description="Model identity and weights dtype, name@revision/float32.")
    batch: str = Field("", description="Identity of the scores written together with these.")
    batch_size: int = Field(1, ge=1, description="Scores in that batch; a replay wants all.")


Record = Completion | Scores
KINDS: Mapping[str, type[Record]] = {"completion": Completion, "scores": Scores}
_NAMES = {kind: name for name, kind in KINDS.items()}


@dataclass(frozen=True, slots=True)
class Line:
    """A whole line of the file."""

    number: int
    raw: bytes
    end: int
    """Offset in the file of the byte after it."""


def encode(key: str, record: Record) -> bytes:
    """Return a record as a line."""
    body = [_NAMES[type(record)], key, record.model_dump()]
    data = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
    return b"%08x %b\n" % (zlib.crc32(data), data)


def _decode(raw: bytes) -> tuple[str, Record] | None:
    checksum, body = raw[:8], raw[9:-1]
    try:
        if int(checksum, 16) != zlib.crc32(body):
            return None
        kind, key, values = json.loads(body)
        return str(key), KINDS[kind].model_validate(values)
    except (ValueError, KeyError, TypeError):
        return None


def read_lines(path: Path) -> Iterator[tuple[Line, tuple[str, Record] | None]]:
    """Yield every whole line with its key and record (None: damaged), without a torn last line."""
    end = 0
    with path.open("rb") as file:
        for number, raw in enumerate(file, start=1):
            end += len(raw)
            if not raw.endswith(b"\n"):
                return
            yield Line(number, raw, end), _decode(raw)


def whole_batches(known: Mapping[str, Record]) -> dict[str, Record]:
    """Leave out the calls of batches that were not written whole.

    What a batch computes depends on all of its calls, so a rest would not come out the same.
    """
    present = Counter(r.batch for r in known.values() if r.batch)
    return {k: r for k, r in known.items() if not r.batch or present[r.batch] >= r.batch_size}


def repair(path: Path) -> int:
    """Keep good lines, move damaged ones to FILE.damaged; return how many were moved."""
    good, aside = path.with_name(f"{path.name}.repaired"), path.with_name(f"{path.name}.damaged")
    damaged = []
    with good.open("wb") as kept:
        for line, record in read_lines(path):
            if record:
                kept.write(line.raw)
            else:
                damaged.append(line.raw)
        kept.flush()
        os.fsync(kept.fileno())
    if damaged:
        with aside.open("ab") as file:
            file.writelines(damaged)
            file.flush()
            os.fsync(file.fileno())
    good.replace(path)
    return len(damaged)


def stats(lines: Iterable[tuple[str, Record] | None]) -> str:
    """Count records by kind, finish reason and model."""
    outcomes: Counter[str] = Counter()
    models: Counter[str] = Counter()
    tokens = damaged = 0
    for found in lines:
        if found is None:
            damaged += 1
            continue
        record = found[1]
        models[record.model] += 1
        if isinstance(record, Completion):
            outcomes[record.finish_reason] += 1
            tokens += record.completion_tokens
        else:
            outcomes["scores"] += 1
    counts = ", ".join(f"{n} {outcome}" for outcome, n in outcomes.most_common())
    first = (
        f"{outcomes.total()} calls ({counts or 'empty'}), {tokens} tokens, {damaged} damaged lines"
    )
    return "\n".join([first, *(f"  {n:>8}  {model}" for model, n in models.most_common())])
