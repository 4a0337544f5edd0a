"""The toxicity classifier on a tiny model made here: labels, long texts, what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from ccai_core.errors import ConfigError, ModelError
from ccai_core.quality_toxicity import ToxicityModel, harmful_labels
from tests.tiny_model import CORPUS, make_tokenizer, save_tiny_model

KIND, CRUEL = CORPUS[1], "You stupid fool, nobody will ever care for a friend like you."


def save_classifier(
    folder: Path, labels: tuple[str, ...] = ("non-toxic", "toxic"), kind: str | None = None
) -> Path:
    tokenizer = make_tokenizer((*CORPUS, CRUEL), 320)
    tokenizer.model_max_length = 32
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, max_position_embeddings=32, initializer_range=0.8,
        pad_token_id=tokenizer.pad_token_id, id2label=dict(enumerate(labels)),
        label2id={name: i for i, name in enumerate(labels)}, problem_type=kind,
    )  # fmt: skip
    BertForSequenceClassification(config).save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return save_classifier(tmp_path_factory.mktemp("classifier"))


def by_hand(folder: Path, text: str) -> torch.Tensor:
    model = ToxicityModel(str(folder), ("toxic",), device="cpu")._loaded
    ids = model.tokenizer(text, return_tensors="pt").input_ids
    with torch.inference_mode():
        return model.model(ids).logits[0]


def test_it_gives_the_probability_of_the_label_that_means_harm(folder: Path) -> None:
    model = ToxicityModel(str(folder), device="cpu")
    scores = model.score([KIND, CRUEL])
    assert scores[0] != scores[1]
    assert all(0 <= score <= 1 for score in scores)
    assert scores == pytest.approx(
        [float(by_hand(folder, t).softmax(-1)[1]) for t in (KIND, CRUEL)]
    )


def test_a_text_has_the_same_score_in_any_company(folder: Path) -> None:
    model = ToxicityModel(str(folder), device="cpu")
    assert model.score([KIND, CRUEL * 3, CRUEL])[2] == model.score([CRUEL])[0]


def test_a_long_text_is_as_toxic_as_its_worst_part(folder: Path) -> None:
    model = ToxicityModel(str(folder), device="cpu")
    tokens = model._loaded.tokenizer
    long = CRUEL + " " + KIND * 12
    assert len(tokens(long).input_ids) > 3 * 32
    [score] = model.score([long])
    parts = tokens(long, truncation=True, max_length=32, return_overflowing_tokens=True).input_ids
    with torch.inference_mode():
        each = [model._loaded.model(torch.tensor([p])).logits.softmax(-1)[0, 1] for p in parts]
    assert score == pytest.approx(float(max(each)), abs=1e-4)


def test_independent_labels_count_by_the_highest(tmp_path: Path) -> None:
    several = save_classifier(
        tmp_path, ("toxic", "insult", "neutral"), "multi_label_classification"
    )
    logits = by_hand(several, CRUEL)
    assert ToxicityModel(str(several), device="cpu").score([CRUEL]) == pytest.approx(
        [float(logits[:2].sigmoid().max())]
    )


@pytest.mark.parametrize(
    ("labels", "chosen", "harmful"),
    [
        (("toxic", "severe_toxic", "obscene", "threat", "insult", "identity_hate"), (), range(6)),
        (("neutral", "toxic"), (), [1]),
        (("non-toxic", "toxic"), (), [1]),
        (("nothate", "hate"), (), [1]),
        (("Not Offensive", "Offensive"), (), [1]),
        (("LABEL_0", "LABEL_1"), ("LABEL_1",), [1]),
        (("toxic", "insult"), ("insult",), [1]),
    ],
)
def test_labels_that_mean_harm(labels, chosen, harmful) -> None:
    assert harmful_labels(dict(enumerate(labels)), chosen) == list(harmful)


def test_labels_that_say_nothing_must_be_named() -> None:
    with pytest.raises(ConfigError, match=r"LABEL_0, LABEL_1.*toxic_labels"):
        harmful_labels({0: "LABEL_0", 1: "LABEL_1"})
    with pytest.raises(ConfigError, match=r"no label 'bad'; it has LABEL_0"):
        harmful_labels({0: "LABEL_0"}, ("bad",))


def test_a_chat_model_is_no_text_classifier(tmp_path: Path) -> None:
    chat = save_tiny_model(tmp_path / "chat")
    with pytest.raises(ModelError, match=r"toxicity_model: .* is no text classifier"):
        ToxicityModel(str(chat), ("LABEL_1",), device="cpu").score(["Hello."])


def test_a_folder_without_a_model_says_which_setting_named_it(tmp_path: Path) -> None:
    with pytest.raises(
        ModelError, match=r"preferences\.quality\.toxicity_model: .* cannot be loaded"
    ):
        ToxicityModel(str(tmp_path), device="cpu").score(["Hello."])


def test_a_name_that_is_neither_folder_nor_hub_id_says_so() -> None:
    with pytest.raises(ModelError, match=r"toxicity_model.*neither a folder nor a hub id"):
        ToxicityModel("no such/folder/here").score(["Hello."])
