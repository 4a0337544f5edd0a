"""A text classifier of transformers that says how toxic an answer is, loaded when first asked.

model = ToxicityModel("owner/a-toxicity-classifier")     # or a folder
model.score(["You are kind.", "You are worthless."])     # [0.01, 0.97]
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from ccai_core.errors import ConfigError, ModelError
from ccai_core.hub import HubUnreachableError, find_on_hub
from ccai_core.models import Device, pick_device

_SETTING = "preferences.quality.toxicity_model"
# Label names that classifiers give to harm, unless a negation stands before them ("non-toxic").
_HARM = re.compile(r"tox|hate|obscen|threat|insult|offens|harm|unsafe|abus|sexual|violen|severe")
_NEGATED = re.compile(r"^(?:non?|not)(?:[\s_-]|tox|hate|offens|harm)|harmless")
# Where neither tokenizer nor model say what fits.
_DEFAULT_WINDOW = 512
_SENSIBLE_WINDOW = 100_000


class _Loaded(NamedTuple):
    model: Any
    tokenizer: Any
    harmful: list[int]
    """Which outputs are labels that mean harm."""
    independent: bool
    """Whether each label has a probability of its own, instead of all adding up to 1."""
    window: int
    """Most tokens that the model reads at once."""


class ToxicityModel:
    """`Classify` by a sequence classification model in this process.

    Args:
        name: a folder, or a hub id (owner/name, owner/name@revision).
        labels: labels that mean harm; empty: those whose names say so.
        device: where it runs.
    """

    def __init__(self, name: str, labels: Sequence[str] = (), device: Device = "auto") -> None:
        self.name, self._labels, self._device = name, tuple(labels), device

    def score(self, texts: Sequence[str]) -> list[float]:
        """Return the probability of harm in each text, in its worst part where it is long.

        Raises:
            ModelError: the model cannot be found or loaded, or is no text classifier.
            ConfigError: its labels do not say which of them mean harm.
        """
        return [self._score(text) for text in texts]

    def _score(self, text: str) -> float:
        # One text at a time: what shares a batch must not change a score.
        import torch

        model, tokenizer, harmful, independent, window = self._loaded
        parts = tokenizer(
            text, truncation=True, max_length=window, return_overflowing_tokens=True,
            padding=True, return_tensors="pt",
        )  # fmt: skip
        inputs = {k: parts[k].to(model.device) for k in ("input_ids", "attention_mask")}
        with torch.inference_mode():
            logits = model(**inputs).logits.float()
        chances = logits.sigmoid() if independent else logits.softmax(-1)
        chances = chances[:, harmful]
        worst = chances.max() if independent else chances.sum(-1).max()
        return min(1.0, float(worst))

    @cached_property
    def _loaded(self) -> _Loaded:
        model, tokenizer = _load(self.name, _folder(self.name))
        config = model.config
        limits = tokenizer.model_max_length, getattr(config, "max_position_embeddings", None)
        known = [limit for limit in limits if limit and limit < _SENSIBLE_WINDOW]
        return _Loaded(
            model=model.to(pick_device(self._device)).eval(),
            tokenizer=tokenizer,
            harmful=harmful_labels(config.id2label, self._labels),
            independent=(
                config.problem_type == "multi_label_classification" or config.num_labels == 1
            ),
            window=min(known, default=_DEFAULT_WINDOW),
        )


def harmful_labels(names: dict[int, str], chosen: Sequence[str] = ()) -> list[int]:
    """Return which outputs mean harm: the chosen labels, else those whose names say so.

    Raises:
        ConfigError: a chosen label does not exist, or no name, or every name, speaks of harm.
    """
    listed = ", ".join(names.values())
    if unknown := set(chosen) - set(names.values()):
        raise ConfigError(
            f"preferences.quality.toxic_labels: the classifier has no label {min(unknown)!r}; "
            f"it has {listed}."
        )
    if chosen:
        return [i for i, name in names.items() if name in chosen]
    lower = {i: name.casefold() for i, name in names.items()}
    found = [i for i, n in lower.items() if _HARM.search(n) and not _NEGATED.search(n)]
    if not found:
        raise ConfigError(
            f"{_SETTING}: the classifier's labels ({listed}) do not say which of them mean harm. "
            "Name them in preferences.quality.toxic_labels."
        )
    return found


def _folder(name: str) -> Path:
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    try:
        return find_on_hub(name)[1]
    except HubUnreachableError:
        raise ModelError(
            f"{_SETTING}: {name} is no folder, is not cached, and the hub cannot be reached. Give "
            "the folder of a downloaded classifier."
        ) from None
    except ModelError as error:
        raise ModelError(str(error).replace("--model", _SETTING)) from None


def _load(name: str, folder: Path) -> tuple[Any, Any]:
    from huggingface_hub.errors import StrictDataclassError
    from safetensors import SafetensorError
    from transformers import AutoModelForSequenceClassification, AutoTokenizer
    from transformers.utils import logging as notices

    notices.disable_progress_bar()
    damaged = (OSError, ValueError, KeyError, TypeError, RuntimeError, ImportError)
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False)
        model, report = AutoModelForSequenceClassification.from_pretrained(
            str(folder), trust_remote_code=False, use_safetensors=True, output_loading_info=True
        )
    except (*damaged, SafetensorError, StrictDataclassError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise ModelError(f"{_SETTING}: {name} cannot be loaded ({first}).") from None
    if missing := sorted(report["missing_keys"]):
        # transformers would make them up at random and only warn.
        raise ModelError(
            f"{_SETTING}: {name} is no text classifier, {len(missing)} of its weights are missing "
            f"(first: {missing[0]}). Take a model for text classification."
        )
    return model, tokenizer
