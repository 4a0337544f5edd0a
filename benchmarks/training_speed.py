"""DPO training here against plain TRL: pairs and tokens a second, peak memory, and the same losses.

    python benchmarks/training_speed.py --pairs 32 --effective-batch 8
    python benchmarks/training_speed.py --pairs 16 --effective-batch 8 --trl-batch 1
    python benchmarks/training_speed.py --device cuda --shape qwen2.5-1.5b --warm-up 4
    python benchmarks/training_speed.py --device cuda --shape qwen2.5-7b --method lora --warm-up 4

Three ways, each in a process of its own, on the same model, pairs, order, precision and effective
batch: this project's (rows, kept reference), TRL's DPOTrainer as it comes (padded, a reference
model beside the policy), and TRL with `precompute_ref_log_probs`. Shapes have random weights, which
is all that speed depends on. Lengths are drawn log-normally, as those of real pairs are. MFU is of
what each way has to read (ccai_core/throughput.py), over what a large matrix product reaches here.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

_WIDTHS = (12, 12, 9, 10, 9, 7)
WAYS = ("ours", "trl", "trl-precomputed")
# hidden, intermediate, layers, heads, key-value heads, vocabulary, tied: the published shapes.
SHAPES = {
    "qwen2.5-0.5b": (896, 4864, 24, 14, 2, 151_936, True),
    "qwen2.5-1.5b": (1536, 8960, 28, 12, 2, 151_936, True),
    "qwen2.5-7b": (3584, 18_944, 28, 28, 4, 152_064, False),
}


def examples(count: int, median: int, spread: float, vocabulary: int) -> list[dict[str, Any]]:
    """Pairs of random tokens whose lengths are spread as those of real ones."""
    rng = random.Random(0)

    def ids(middle: float) -> list[int]:
        length = max(4, min(4 * median, round(rng.lognormvariate(math.log(middle), spread))))
        return [rng.randrange(10, vocabulary - 10) for _ in range(length)]

    return [
        {"prompt_ids": ids(median / 3), "chosen_ids": ids(median), "rejected_ids": ids(median)}
        for _ in range(count)
    ]


def load(arguments: argparse.Namespace) -> Any:
    import torch
    from transformers import AutoModelForCausalLM, Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    if arguments.shape is None:
        from ccai_core.models import resolve_model

        path = resolve_model("embedded").path
        return AutoModelForCausalLM.from_pretrained(str(path), dtype=torch.float32)
    hidden, inner, layers, heads, kv, vocabulary, tied = SHAPES[arguments.shape]
    config = Qwen2Config(
        hidden_size=hidden, intermediate_size=inner, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=kv, vocab_size=vocabulary,
        tie_word_embeddings=tied, max_position_embeddings=4096,
    )  # fmt: skip
    with torch.device("cuda" if arguments.device == "cuda" else "cpu"):
        return Qwen2ForCausalLM(config)


def measure(arguments: argparse.Namespace, way: str) -> dict[str, Any]:
    """Train in a process of its own; what only the first updates cost is left out if asked."""
    from ccai_core.memory import give_back

    if arguments.warm_up:
        train_once(arguments, way, arguments.warm_up * arguments.effective_batch, epochs=1)
        give_back(arguments.device)
    return {"way": way, **train_once(arguments, way, arguments.pairs, arguments.epochs)}


@contextmanager
def profiled(rows: int) -> Iterator[None]:
    """Print the operations that take the GPU's time, the most expensive first."""
    if not rows:
        yield
        return
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as found:
        yield
    table = found.key_averages().table(sort_by="self_cuda_time_total", row_limit=rows)
    print(table, file=sys.stderr)


def train_once(arguments: argparse.Namespace, way: str, pairs: int, epochs: int) -> dict[str, Any]:
    """Train so many pairs so often."""
    import datasets
    import torch
    from transformers import TrainerCallback
    from trl import DPOConfig, DPOTrainer

    from ccai_core.dpo_trainer import lora
    from ccai_core.memory import peak_mb
    from ccai_core.pair_rows import PairCollator, add_pair_head
    from ccai_core.pair_trainer import Trainer
    from ccai_core.reference import ReferenceCache
    from ccai_core.throughput import Meter, measured_ceiling, work_of
    from ccai_core.training_config import TrainingConfig
    from ccai_core.training_progress import quiet
    from ccai_core.training_weights import compile_blocks, round_linear_maps
    from tests.tiny_model import CORPUS, make_tokenizer

    on_gpu = arguments.device == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    model = load(arguments)
    # Nothing is tokenised: TRL wants one.
    tokenizer = make_tokenizer(CORPUS, 320)
    data = datasets.Dataset.from_list(
        examples(pairs, arguments.median, arguments.spread, model.config.vocab_size)
    )
    ours = way == "ours"
    # TRL switches dropout off, so it is off for all.
    adapters = lora(TrainingConfig(lora_dropout=0)) if arguments.method == "lora" else None
    if adapters and arguments.precision == "bf16":
        # As a user of TRL would load it: all of it rounded.
        round_linear_maps(model, "bf16") if ours else model.to(torch.bfloat16)
    # Ours computes one pair after the other on a CPU, and all of an update on a GPU.
    at_once = (None if on_gpu else 1) if ours else arguments.trl_batch
    size = at_once or arguments.effective_batch
    seen: list[tuple[float, float]] = []

    class Watch(TrainerCallback):  # type: ignore[misc]
        def on_log(self, args: Any, state: Any, control: Any, logs: Any, **_: Any) -> None:
            if "loss" in logs:
                seen.append((time.monotonic(), logs["loss"]))

    class Said(Watch):
        def tell(self, line: str) -> None: ...

        def reference(self, *_: Any) -> None: ...

    with tempfile.TemporaryDirectory() as folder, quiet():
        settings = DPOConfig(
            output_dir=folder, per_device_train_batch_size=size,
            gradient_accumulation_steps=arguments.effective_batch // size,
            num_train_epochs=epochs, learning_rate=1e-6, beta=0.1, max_length=None,
            precompute_ref_log_probs=way != "trl", use_cpu=arguments.device == "cpu",
            bf16=arguments.precision == "bf16", fp16=False, logging_steps=1, report_to=[],
            save_strategy="no", disable_tqdm=True, seed=0, data_seed=0, warmup_steps=0,
            gradient_checkpointing=arguments.checkpointing, dataset_num_proc=None,
        )  # fmt: skip
        # Tokens are given, so that no trainer's own tokenising is timed.
        kind = Trainer if ours else DPOTrainer
        kind._prepare_dataset = lambda self, dataset, *_, **__: dataset
        more: dict[str, Any] = {"callbacks": [Watch()], "peft_config": adapters}
        if ours:
            add_pair_head(model, packed=on_gpu)
            if arguments.compile:
                compile_blocks(model)
            said = Said()
            more |= {
                "callbacks": [said], "progress": said,
                "reference": ReferenceCache(Path(folder), {"model": "it"}),
                "data_collator": PairCollator(pad_token_id=0, max_length=None),
            }  # fmt: skip
        elif way == "trl" and not adapters:
            # TRL would read it from the disk again.
            more["ref_model"] = copy.deepcopy(model)
        began = time.monotonic()
        trainer = kind(
            model=model, args=settings, processing_class=tokenizer, train_dataset=data, **more
        )
        ready = time.monotonic()
        meter = Meter(trainer.model)
        with profiled(arguments.profile):
            trainer.train()
        if on_gpu:
            torch.cuda.synchronize()
        ended = time.monotonic()
    tokens = sum(
        len(each[k]) for each in data for k in ("prompt_ids", "chosen_ids", "rejected_ids")
    )
    read, _ = meter.take()
    ceiling = measured_ceiling(arguments.device, arguments.precision)
    found = {
        "reference_seconds": round(ready - began, 2),
        "seconds": round(ended - ready, 2),
        "pairs_per_second": epochs * pairs / (ended - began),
        "tokens_per_second": epochs * tokens / (ended - began),
        "mfu": work_of(trainer.model).flops(read) / (ended - ready) / ceiling,
        "ceiling_tflops": ceiling / 1e12,
        "peak_mb": peak_mb(arguments.device),
        "losses": [loss for _, loss in seen],
        "torch": torch.__version__,
    }
    # Else the model's memory is not given back before another is made: hooks refer to it in rings.
    del trainer, model, meter, more
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--shape", choices=sorted(SHAPES), help="random weights; unset: embedded")
    parser.add_argument("--pairs", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=3, help="the reference is computed once")
    parser.add_argument("--effective-batch", type=int, default=8, help="pairs an update")
    parser.add_argument(
        "--trl-batch", type=int, help="pairs TRL computes at once; unset: all of an update"
    )
    parser.add_argument("--median", type=int, default=120, help="tokens of an answer")
    parser.add_argument("--spread", type=float, default=0.6, help="sigma of the log-normal")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument(
        "--precision", choices=["fp32", "bf16"], help="unset: bf16 on cuda, else fp32"
    )
    parser.add_argument("--method", choices=["full", "lora"], default="full")
    parser.add_argument(
        "--warm-up", type=int, default=0, help="updates of a first training that is not counted"
    )
    parser.add_argument("--compile", action="store_true", help="ours: with compile_blocks")
    parser.add_argument("--profile", type=int, default=0, help="operations to name, and their time")
    parser.add_argument("--checkpointing", action="store_true", help="recompute activations")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--one", choices=WAYS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.precision = arguments.precision or ("bf16" if arguments.device == "cuda" else "fp32")
    if arguments.one:
        print("RESULT " + json.dumps(measure(arguments, arguments.one)))
        return
    found = []
    for way in arguments.ways:
        done = subprocess.run(  # noqa: S603 - our own words
            [sys.executable, __file__, *sys.argv[1:], "--one", way],
            capture_output=True, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1"},
        )  # fmt: skip
        lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
        if not lines:
            print(f"{way}: failed\n{done.stderr[-2000:]}")
            continue
        if arguments.profile:
            print(done.stderr)
        found.append(json.loads(lines[-1].removeprefix("RESULT ")))
        print_row(found[-1], found[0])
    if len({len(each["losses"]) for each in found}) == 1 and len(found) > 1:
        apart = max(
            abs(a - b)
            for each in found[1:]
            for a, b in zip(found[0]["losses"], each["losses"], strict=True)
        )
        print(f"Largest difference of the losses of an update: {apart:.2e}")


def print_row(row: dict[str, Any], first: dict[str, Any]) -> None:
    if row is first:
        heads = ("reference s", "training s", "pairs/s", "tokens/s", "peak MB", "MFU")
        print(f"{'way':<16}" + "".join(f"{h:>{w}}" for h, w in zip(heads, _WIDTHS, strict=True)))
    print(
        f"{row['way']:<16}{row['reference_seconds']:>12.1f}{row['seconds']:>12.1f}"
        f"{row['pairs_per_second']:>9.2f}{row['tokens_per_second']:>10.0f}{row['peak_mb']:>9}{row['mfu']:>7.1%}",
        flush=True,
    )


if __name__ == "__main__":
    main()
