"""Pairs by datatrove's inference runner: one document a prompt, its principles side by side.

Runs in an environment of its own with datatrove; peers.py starts it and says what to make.

    trove/bin/python benchmarks/generation/peer_datatrove.py work.json pairs.jsonl
"""

import asyncio
import functools
import json
import sys
from pathlib import Path

from datatrove.data import Document
from datatrove.pipeline.inference.run_inference import InferenceConfig, InferenceRunner
from datatrove.pipeline.writers import JsonlWriter


async def rollout(document, generate, *, work):
    """Answer a prompt, then criticise and revise the answer under each principle."""
    asked = document.metadata

    async def ask(turns, stage):
        payload = {
            "messages": turns, "max_tokens": work["tokens"][stage], "seed": asked["seed"],
            "repetition_penalty": work["repetition_penalty"], **work["sampling"],
        }  # fmt: skip
        result = await generate(payload)
        return result.text.strip() if result.finish_reason == "stop" else ""

    async def step(principle, turns):
        turns = [*turns, {"role": "user", "content": principle["critique"]}]
        critique = await ask(turns, "critique")
        if not critique:
            return None
        turns += [
            {"role": "assistant", "content": critique},
            {"role": "user", "content": principle["revision"]},
        ]
        revision = await ask(turns, "revision")
        return {"critique": critique, "chosen": revision} if revision else None

    response = await ask(asked["messages"], "response")
    if not response:
        return []
    turns = [*asked["messages"], {"role": "assistant", "content": response}]
    made = await asyncio.gather(*(step(each, turns) for each in asked["principles"]))
    return [{"rejected": response, **pair} for pair in made if pair]


def main() -> None:
    path, out = map(Path, sys.argv[1:])
    work = json.loads(path.read_text(encoding="utf-8"))
    documents = [
        Document(text=prompt["messages"][-1]["content"], id=prompt["id"], metadata=prompt)
        for prompt in work["prompts"]
    ]
    config = InferenceConfig(
        server_type="endpoint",
        endpoint_url=work["url"],
        model_name_or_path=work["model"],
        max_concurrent_generations=work["at_once"],
    )
    folder = out.parent / "datatrove"
    runner = InferenceRunner(
        functools.partial(rollout, work=work),
        config,
        JsonlWriter(str(folder), output_filename="${rank}.jsonl", compression=None),
    )
    runner.run(documents)
    with out.open("w", encoding="utf-8") as file:
        for part in sorted(folder.glob("*.jsonl")):
            for line in part.read_text(encoding="utf-8").splitlines():
                for results in json.loads(line)["metadata"]["rollout_results"]:
                    file.writelines(json.dumps(pair) + "\n" for pair in results)


if __name__ == "__main__":
    main()
