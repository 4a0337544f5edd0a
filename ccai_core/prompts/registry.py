"""The published prompt sources: where each is, what it may be used for, how its files are known.

SOURCES["hh-rlhf/harmless-base"].licence        # 'MIT'
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from pydantic import Field

from ccai_core.config import Config

UNKNOWN_LICENCE = "NOASSERTION"  # SPDX's word for: nobody has said
_HUB = "https://huggingface.co/datasets"
_RAW = "https://raw.githubusercontent.com"


class SourceFile(Config):
    """One file of a source, and the hash by which it is known."""

    name: str = Field(description="Path below the data directory.")
    url: str = Field(description="Where it is published.")
    part: str = Field("", description="Part of the source it holds, e.g. 'train'; in prompt ids.")
    sha256: str | None = Field(None, description="Hash of the file.")
    git_blob: str | None = Field(None, description="Its git blob id, where only that is published.")


class SourceInfo(Config):
    """What is known of a source of prompts; it travels with every data set made of it."""

    name: str = Field(description="As in commands and in Prompt.source.")
    title: str = Field(description="Full name.")
    homepage: str = Field("", description="Where to read about it.")
    licence: str = Field(UNKNOWN_LICENCE, description="SPDX identifier.")
    attribution: str = Field("", description="Whom to name, and the paper to cite.")
    files: tuple[SourceFile, ...] = Field((), description="Its files; none: nothing to fetch.")
    prompts: int | None = Field(None, description="How many it gives, where that is known.")
    restricted: bool = Field(False, description="Members only: text stays out of artifacts.")
    harmful: bool = Field(False, description="Holds offensive or dangerous requests by design.")
    evaluation_only: bool = Field(False, description="Never to be trained on.")
    note: str = Field("", description="What else a user should know.")


def _ailuminate(name: str, language: str, code: str, sha256: str) -> SourceInfo:
    file = f"airr_official_1.0_demo_{code}_prompt_set_release.csv"
    return SourceInfo(
        name=name,
        title=f"AILuminate 1.0 demo prompts, {language}",
        homepage="https://github.com/mlcommons/ailuminate",
        licence="CC-BY-4.0",
        attribution="MLCommons AI Risk & Reliability working group. Ghosh et al. 2025, "
        "AILuminate: Introducing v1.0 of the AI Risk and Reliability Benchmark, arXiv 2503.05731.",
        files=(
            SourceFile(
                name=f"ailuminate/{file}",
                url=f"{_RAW}/mlcommons/ailuminate/main/{file}",
                sha256=sha256,
            ),
        ),
        prompts=1200,
        harmful=True,
    )


def _members_only(name: str, title: str, note: str) -> SourceInfo:
    return SourceInfo(
        name=name,
        title=title,
        homepage="https://mlcommons.org/ailuminate/",
        licence="LicenseRef-MLCommons-members",
        attribution="MLCommons AI Risk & Reliability working group.",
        prompts=12_000,
        restricted=True,
        harmful=True,
        note=f"{note} Read from your own copy with --file; the text stays out of artifacts.",
    )


_BAI = (
    "Anthropic. Bai et al. 2022, Training a Helpful and Harmless Assistant with Reinforcement "
    "Learning from Human Feedback, arXiv 2204.05862."
)
_GANGULI = (
    "Anthropic. Ganguli et al. 2022, Red Teaming Language Models to Reduce Harms: Methods, "
    "Scaling Behaviors, and Lessons Learned, arXiv 2209.07858."
)


def _hh_file(
    folder: str, part: str, sha256: str | None = None, git_blob: str | None = None
) -> SourceFile:
    path = f"{folder}/{part}.jsonl.gz"
    # The GitHub repository holds some files themselves and of others a pointer to the hub's copy.
    at_github = git_blob is not None
    return SourceFile(
        name=f"hh-rlhf/{path}",
        url=f"{_RAW}/anthropics/hh-rlhf/master/{path}"
        if at_github
        else f"{_HUB}/Anthropic/hh-rlhf/resolve/main/{path}",
        part=part if folder != "red-team-attempts" else "",
        sha256=sha256,
        git_blob=git_blob,
    )


def _hh(
    folder: str, title: str, prompts: int, *files: SourceFile, harmful: bool = False
) -> SourceInfo:
    return SourceInfo(
        name=f"hh-rlhf/{folder}",
        title=f"HH-RLHF {title}",
        homepage="https://github.com/anthropics/hh-rlhf",
        licence="MIT",
        attribution=_GANGULI if folder == "red-team-attempts" else _BAI,
        files=files,
        prompts=prompts,
        harmful=harmful,
        note="Many rows begin with the same turn: cleaning keeps one of each.",
    )


_HH = (
    _hh(
        "harmless-base",
        "harmlessness comparisons",
        44_849,
        _hh_file(
            "harmless-base",
            "test",
            "ebfaaed21162a4de120ae85366075b34425e2a6303fac59b99555002f7016f03",
            "a616e6a27660ded23c5ce0e585a3e4cf0d761f0e",
        ),
        _hh_file("harmless-base", "train", git_blob="df7c90b1bbd6093bda9c996e8aab9a46fa557dcf"),
        harmful=True,
    ),
    _hh(
        "helpful-base",
        "helpfulness comparisons",
        46_189,
        _hh_file(
            "helpful-base",
            "test",
            "8be3fc1a13b27901631696f2be6f184c799f1baeaf145f53ac5db24960adc37b",
        ),
        _hh_file(
            "helpful-base",
            "train",
            "518a5bf288456fc9f3b7c980c54116fba0c52f274d3f4d344675d83e4058f6f4",
        ),
    ),
    _hh(
        "helpful-online",
        "helpfulness comparisons, online",
        23_144,
        _hh_file(
            "helpful-online",
            "test",
            "39a475cc7e0df972902f8e3a0972726fce826ac65369bda8c671de4330c60a10",
        ),
        _hh_file(
            "helpful-online",
            "train",
            "0994d18b82083f5c084ce04071b683958a724df8c7215ab1d851986642d36a2a",
        ),
    ),
    _hh(
        "helpful-rejection-sampled",
        "helpfulness comparisons, rejection sampled",
        55_170,
        _hh_file(
            "helpful-rejection-sampled",
            "test",
            "abc35dbc56015db1dae0faa484514ccbc3eee0133bfcd557fc69250619b028bb",
        ),
        _hh_file(
            "helpful-rejection-sampled",
            "train",
            "0cea2d2ab2187624ec1314e8cc6fb579f0fa987b3a33e8102b7556ed4d255f64",
        ),
    ),
    _hh(
        "red-team-attempts",
        "red team attempts",
        38_961,
        _hh_file(
            "red-team-attempts",
            "red_team_attempts",
            git_blob="618ca2d1f90bf6c95ae65ea93b90f5a8d013c36c",
        ),
        harmful=True,
    ),
)

_OASST_REVISION = "fdf72ae0827c1cda404aff25b6603abec9e3399b"
_OASST_FILE = "2023-04-12_oasst_ready.messages.jsonl.gz"

_ALL = (
    _ailuminate(
        "ailuminate-demo",
        "English",
        "en_us",
        "63e2b654325c5405096fabf28ef5f057b0ad674904b1839fd1f52b523e324d02",
    ),
    _ailuminate(
        "ailuminate-demo-fr",
        "French",
        "fr_fr",
        "5f26484aca585ed690f6da61230e214069778fed43bc2c735d30b4df29f1fe1c",
    ),
    _members_only(
        "ailuminate-practice",
        "AILuminate 1.0 practice prompts",
        "For members of MLCommons, who ask for it at its homepage.",
    ),
    _members_only(
        "ailuminate-official",
        "AILuminate 1.0 official prompts",
        "For whom MLCommons gives it to.",
    ),
    *_HH,
    SourceInfo(
        name="mt-bench",
        title="MT-Bench questions",
        homepage="https://github.com/lm-sys/FastChat/tree/main/fastchat/llm_judge",
        licence="Apache-2.0",
        attribution="LMSYS. Zheng et al. 2023, Judging LLM-as-a-Judge with MT-Bench and Chatbot "
        "Arena, arXiv 2306.05685.",
        files=(
            SourceFile(
                name="mt-bench/question.jsonl",
                url=f"{_RAW}/lm-sys/FastChat/main/fastchat/llm_judge/data/mt_bench/question.jsonl",
                sha256="119565adbab82227089cefdb44c8d7e2cf04dc0a0ec233634c82e7d4e2a944f7",
            ),
        ),
        prompts=80,
        evaluation_only=True,
        note="For evaluation only: all on the test side. Second turns need an answer to the first.",
    ),
    SourceInfo(
        name="oasst1",
        title="OpenAssistant Conversations, first turns",
        homepage=f"{_HUB}/OpenAssistant/oasst1",
        licence="Apache-2.0",
        attribution="LAION and contributors. Köpf et al. 2023, OpenAssistant Conversations: "
        "Democratizing Large Language Model Alignment, arXiv 2304.07327.",
        files=(
            SourceFile(
                name=f"oasst1/{_OASST_FILE}",
                url=f"{_HUB}/OpenAssistant/oasst1/resolve/{_OASST_REVISION}/{_OASST_FILE}",
                sha256="286a6e9a5a413b3272ae9c0b5a20d327983dea1c24342ae28cb244a6da65185c",
            ),
        ),
        prompts=10_364,
        note="In 35 languages; `locale` says which.",
    ),
    SourceInfo(
        name="scenarios",
        title="Contemplative scenarios of this platform",
        licence="Apache-2.0",
        attribution="Written for this platform.",
        note="Shipped; half of each principle's are on the test side.",
    ),
)

SOURCES: Mapping[str, SourceInfo] = MappingProxyType({source.name: source for source in _ALL})

# One name for several sources.
GROUPS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"hh-rlhf": tuple(source.name for source in _HH)}
)
