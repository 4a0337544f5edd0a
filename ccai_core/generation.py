"""Make a preference data set in this process: load the model, run episodes, filter, write.

`generate_pairs` is a plain function of picklable arguments that reads and writes files, so it runs
as a job. Called again after a kill it replays its journal and goes on to the very same pairs.

    generate_pairs(request, out=Path("artifacts/pairs-…"), journal=Path("journal/calls.jsonl"))
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from pydantic import Field

from ccai_core.config import Config
from ccai_core.constitution import Constitution
from ccai_core.engines import LocalEngines, OpenEngine
from ccai_core.models import ModelRef
from ccai_core.preferences import Funnel, PairSet, PreferenceConfig, make_pairs, write_pairs
from ccai_core.progress import ProgressFile
from ccai_core.types import Prompt, fingerprint

# Counted up whenever the same request would make other pairs than before.
_RECIPE = 1


class PairRequest(Config):
    """What pairs are made of; equal requests make equal pairs."""

    model: ModelRef = Field(description="Writes responses, critiques and revisions.")
    constitution: Constitution = Field(description="The principles.")
    prompts: tuple[Prompt, ...] = Field(description="Prompts of the train side.")
    max_pairs: int = Field(ge=1, description="Pairs to make, over all principles together.")
    config: PreferenceConfig = Field(description="How they are made and which are kept.")

    @property
    def inputs(self) -> dict[str, object]:
        """What determines the pairs, in short: content, not paths."""
        return {
            "recipe": _RECIPE,
            "model": self.model.identity,
            "constitution": self.constitution.fingerprint,
            "prompts": fingerprint([(p.id, p.text, p.source) for p in self.prompts]),
            "max_pairs": self.max_pairs,
            "config": self.config.model_dump(mode="json"),
        }


def generate_pairs(
    request: PairRequest, out: Path, journal: Path, engines: OpenEngine | None = None
) -> Funnel:
    """Write pairs.jsonl, rejected.jsonl and funnel.json into `out`, and progress meanwhile.

    `engines` opens the model that writes; none: in this process.

    Raises:
        DataError: the journal is damaged, or not one pair came out.
        ModelError: the model cannot be loaded.
    """
    out.mkdir(parents=True, exist_ok=True)
    progress = ProgressFile(out / "progress.json")
    made = asyncio.run(_generate(request, progress, journal, engines or LocalEngines()))
    write_pairs(made.pairs, out / "pairs.jsonl")
    write_pairs(made.rejected, out / "rejected.jsonl")
    write_pairs([made.funnel], out / "funnel.json")
    print(f"{made.funnel.pairs} pairs in {out / 'pairs.jsonl'}", flush=True)
    return made.funnel


async def _generate(
    request: PairRequest, progress: ProgressFile, journal: Path, engines: OpenEngine
) -> PairSet:
    from ccai_core.journal import Journal, Recorded

    began = time.monotonic()
    batch_size = request.config.generation.batch_size
    with Journal.open(journal) as calls:
        async with engines(request.model, batch_size=batch_size) as engine:
            recorded = Recorded(engine, calls)

            def report(kept: int, wanted: int, finished: int) -> None:
                seconds = time.monotonic() - began
                progress.write(
                    "pairs", kept, wanted, calls=finished, asked=recorded.asked,
                    calls_per_second=round(recorded.asked / seconds, 2),
                )  # fmt: skip

            return await make_pairs(
                recorded,
                request.prompts,
                request.constitution,
                request.config,
                request.max_pairs,
                on_progress=report,
            )
