"""Pairs by distilabel: a pipeline of three chat steps, with small steps between them.

Runs in an environment of its own with distilabel; peers.py starts it and says what to make. A step
asks for all rows of a batch at once and waits for the last of them; the three steps run side by
side, each in a process of its own.

    label/bin/python benchmarks/generation/peer_distilabel.py work.json pairs.jsonl
"""

import json
import sys
from pathlib import Path

from distilabel.models import OpenAILLM
from distilabel.pipeline import Pipeline
from distilabel.steps import LoadDataFromDicts, StepInput, step
from distilabel.steps.tasks import ChatGeneration


def split(rows, stage):
    """Return what a stage wrote to its end, each with its row; a batch never comes to nothing.

    A step that gives no row for a batch stops distilabel 1.5.3 for good. So if all of a batch were
    cut off, the first goes on, marked as no pair.
    """
    made = []
    for row in rows:
        text = (row.pop("generation") or "").strip()
        tokens = row["distilabel_metadata"][f"statistics_{stage}"]["output_tokens"]
        made.append((row, text, bool(text) and tokens < row["limits"][stage]))
    whole = [(row, text) for row, text, is_whole in made if is_whole]
    return whole or [(made[0][0] | {"is_pair": False}, made[0][1] or ".")]


@step(inputs=["messages", "generation"], outputs=["messages"])
def ask_critiques(inputs: StepInput):
    """Make one row for each principle."""
    rows = []
    for row, response in split(inputs, "response"):
        turns = [*row["messages"], {"role": "assistant", "content": response}]
        for principle in row["principles"]:
            asked = [*turns, {"role": "user", "content": principle["critique"]}]
            rows.append(row | {"messages": asked, "ask": principle["revision"],
                               "rejected": response, "principles": None})  # fmt: skip
    yield rows


@step(inputs=["messages", "generation"], outputs=["messages"])
def ask_revisions(inputs: StepInput):
    """Ask for the better answer."""
    rows = []
    for row, critique in split(inputs, "critique"):
        turns = [
            *row["messages"],
            {"role": "assistant", "content": critique},
            {"role": "user", "content": row["ask"]},
        ]
        rows.append(row | {"messages": turns, "critique": critique})
    yield rows


@step(inputs=["generation"], outputs=["chosen"])
def keep_pairs(inputs: StepInput):
    """Keep what came to its end."""
    yield [
        {name: row[name] for name in ("rejected", "critique", "is_pair")} | {"chosen": text}
        for row, text in split(inputs, "revision")
    ]


def main() -> None:
    path, out = map(Path, sys.argv[1:])
    work = json.loads(path.read_text(encoding="utf-8"))
    rows = [prompt | {"limits": work["tokens"], "is_pair": True} for prompt in work["prompts"]]
    at_once = work["at_once"]

    def chat(stage):
        # One seed for all rows: a step's sampling is the same for all that it asks.
        more = {"repetition_penalty": work["repetition_penalty"], "seed": 1}
        llm = OpenAILLM(
            base_url=f"{work['url']}/v1", api_key="none", model=work["model"], timeout=3600,
            generation_kwargs={
                "max_new_tokens": work["tokens"][stage], "extra_body": more, **work["sampling"]
            },
        )  # fmt: skip
        return ChatGeneration(
            name=stage, llm=llm, input_batch_size=at_once, add_raw_input=False,
            add_raw_output=False,
        )  # fmt: skip

    with Pipeline(name="pairs", cache_dir=out.parent / "cache") as pipeline:
        (
            LoadDataFromDicts(data=rows, batch_size=at_once)
            >> chat("response")
            >> ask_critiques(input_batch_size=at_once)
            >> chat("critique")
            >> ask_revisions(input_batch_size=at_once)
            >> chat("revision")
            >> keep_pairs(input_batch_size=at_once)
        )
    made = pipeline.run(use_cache=False)["default"]["train"]
    with out.open("w", encoding="utf-8") as file:
        for row in filter(lambda row: row["is_pair"], made):
            pair = {name: row[name] for name in ("rejected", "critique", "chosen")}
            file.write(json.dumps(pair) + "\n")


if __name__ == "__main__":
    main()
