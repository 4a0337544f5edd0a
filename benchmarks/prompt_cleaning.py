"""Cleaning of prompts: near-duplicates found and invented, seconds, memory, leaks found.

    python benchmarks/prompt_cleaning.py                       # tables; 200,000 prompts at the end
    python benchmarks/prompt_cleaning.py --prompts 20000 --libraries

Prompts are real ones with edits (tests/planted_edits.py): HH's first turns where ../shared/data has
them, and all shipped ones. `--libraries` compares the libraries that make signatures.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from random import Random

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from ccai_core.prompts.cleaning import clean  # noqa: E402
from ccai_core.prompts.leaks import find_leaks, trained_on  # noqa: E402
from ccai_core.prompts.near_duplicates import NearDuplicates  # noqa: E402
from ccai_core.prompts.similarity import bag_of, shingles  # noqa: E402
from ccai_core.types import Prompt  # noqa: E402
from tests.planted_edits import (  # noqa: E402
    Edit,
    another_number,
    another_question,
    any_synonym,
    content_words,
    many,
    planted,
    real_prompts,
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--prompts", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--libraries", action="store_true")
    asked = parser.parse_args()
    quality(asked.seed)
    if asked.libraries:
        libraries()
    scale(asked.prompts, asked.seed)
    leaks(asked.seed)


def quality(seed: int) -> None:
    """Print recall for each kind of edit, and precision over edits and other questions."""
    dice, texts, index = Random(seed), real_prompts(), NearDuplicates()
    kept = [text for number, text in enumerate(texts) if index.add(str(number), text) is None]

    def share_found(found: list[str]) -> str:
        hits = sum(index.find(text) is not None for text in found)
        return f"{len(found)} | {hits / max(1, len(found)):.3f}"

    edits: dict[str, list[str]] = defaultdict(list)
    one_each = []
    for text in kept:
        made = list(planted(dice, text))
        one_each.append(dice.choice(made)[1])
        for kind, edited in made:
            edits[kind].append(edited)
    print(f"{len(texts)} real prompts, of which {len(texts) - len(kept)} are near-duplicates.\n")
    print("| planted | texts | taken for the same |\n|---|---|---|")
    for kind, found in edits.items():
        print(f"| {kind} | {share_found(found)} |")
    print(f"| all edits | {share_found([text for found in edits.values() for text in found])} |")
    short = [text for text in kept if len(content_words(text)) < 7]
    print(f"| synonym in a shorter text | {share_found(changed(any_synonym, dice, short))} |")
    halves = changed(another_question, dice, kept)
    print(f"| other question, half of the telling words | {share_found(halves)} |")
    quarters = changed(partial(another_question, share=0.25), dice, kept)
    print(f"| other question, a quarter of them | {share_found(quarters)} |")
    print(f"| another number | {share_found(changed(another_number, dice, kept))} |")
    right = sum(index.find(text) is not None for text in one_each)
    wrong = sum(index.find(text) is not None for text in halves)
    print(
        f"\nOne edit and one other question of each: recall {right / len(one_each):.3f}, "
        f"precision {right / (right + wrong):.3f}.\n"
    )


def changed(edit: Edit, dice: Random, texts: list[str]) -> list[str]:
    """Return the texts that an edit changes, changed."""
    return [new for text in texts if (new := edit(dice, text)) and new != text]


def scale(count: int, seed: int) -> None:
    """Clean many prompts, given one by one, and print time and memory."""
    kinds: dict[str, str | None] = {}

    def prompts() -> Iterator[Prompt]:
        for number, (text, kind) in enumerate(many(count, seed)):
            kinds[str(number)] = kind
            yield Prompt(id=str(number), text=text, source="planted", split="train")

    began, cpu = time.monotonic(), time.process_time()
    given = list(prompts())
    made = time.process_time() - cpu
    print(f"{count} prompts made in {made:.0f} s, {peak_mb()} MB.")
    began, cpu = time.monotonic(), time.process_time()
    cleaned = clean(given)
    seconds, cpu = time.monotonic() - began, time.process_time() - cpu
    gone = {dropped.id for dropped in cleaned.dropped}
    edits = [number for number, kind in kinds.items() if kind]
    print(
        "\n| prompts | s | CPU s | peak MB | kept | planted | of these dropped | others dropped |"
    )
    print("|---|---|---|---|---|---|---|---|")
    print(
        f"| {count} | {seconds:.0f} | {cpu:.0f} | {peak_mb()} | {len(cleaned.prompts)} | "
        f"{len(edits)} | {sum(n in gone for n in edits) / max(1, len(edits)):.3f} | "
        f"{sum(kinds[n] is None for n in gone)} |"
    )
    print(f"\n{cleaned.reasons}; {dict(Counter(cleaned.languages).most_common(5))}\n")


def leaks(seed: int, trained: int = 40_000, evaluated: int = 400) -> None:
    """Plant edits of every evaluation prompt among training prompts, and look for them."""
    dice = Random(seed)
    held_out = [
        Prompt(id=f"e{n}", text=text, source="held-out", split="test")
        for n, text in enumerate(dice.sample(real_prompts(), evaluated))
    ]
    edits = [dice.choice(list(planted(dice, prompt.text)))[1] for prompt in held_out[::2]]
    texts = [text for text, _ in many(trained - len(edits), seed + 1)] + edits
    examples = [
        Prompt(id=f"t{n}", text=text, source="pairs", split="train") for n, text in enumerate(texts)
    ]
    cpu = time.process_time()
    found = {leak.evaluated_id for leak in find_leaks(trained_on(examples), held_out)}
    cpu = time.process_time() - cpu
    there = {prompt.id for prompt in held_out[::2]}
    print(
        f"{trained} training prompts, {evaluated} evaluation prompts, {len(there)} leaks planted "
        f"(one edit each): {len(found & there)} found, {len(found - there)} others, {cpu:.1f} CPU s"
    )


def libraries(count: int = 5_000) -> None:
    """Print what a signature, a query and an insertion cost with each library."""
    from datasketch import MinHash, MinHashLSH
    from rensa import RMinHash, RMinHashLSH

    pieces = [shingles(bag_of(text)) for text, _ in many(count, 0)]
    slow, fast = MinHashLSH(num_perm=128, params=(32, 4)), RMinHashLSH(0.85, 128, 32)

    def with_datasketch(number: int) -> None:
        sketch = MinHash(num_perm=128, seed=1)
        sketch.update_batch([piece.encode() for piece in pieces[number]])
        slow.query(sketch)
        slow.insert(str(number), sketch)

    def with_rensa(number: int) -> None:
        sketch = RMinHash(128, 1)
        sketch.update(pieces[number])
        fast.query(sketch)
        fast.insert(number, sketch)

    steps: dict[str, Callable[[int], None]] = {"datasketch": with_datasketch, "rensa": with_rensa}
    print("| library | CPU s for 200,000 |\n|---|---|")
    for name, step in steps.items():
        cpu = time.process_time()
        for number in range(count):
            step(number)
        print(f"| {name} | {(time.process_time() - cpu) * 200_000 / count:.1f} |")
    print()


def peak_mb() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


if __name__ == "__main__":
    main()
