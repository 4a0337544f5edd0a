"""What the commands of a release do: make it, check it, upload it.

summary = verify(ReleaseVerifyConfig(folder=Path("release")))
"""

from __future__ import annotations

import shlex
from itertools import takewhile
from pathlib import Path

from ccai_core.dataset_export import check_repository
from ccai_core.errors import ArtifactError
from ccai_core.release.build import build_release
from ccai_core.release.checksums import SIGNATURE_FILE, problems
from ccai_core.release.parts import Parts, read_parts
from ccai_core.release.publish import push_release, upload_plan
from ccai_core.release.smoke import ask
from flows.release_config import (
    ReleaseBuildConfig,
    ReleasePushConfig,
    ReleaseSmokeConfig,
    ReleaseVerifyConfig,
)
from flows.release_recipe import recipe_of
from flows.results import Summary

_SIGNED = (
    f"There is a signature, {SIGNATURE_FILE}: `sigstore verify identity` says whose it is "
    "(docs/release.md)."
)


def plan_build(config: ReleaseBuildConfig) -> str:
    """Say what would be released, and which success criteria are not shown to be met.

    Raises:
        CCAIError: the artifacts cannot be used, or do not belong together.
    """
    parts = _parts(config)
    gates = [f"  not shown: {gate}" for gate in parts.failed_gates]
    pairs = sum(parts.info.rows.values())
    return "\n".join(
        [f"Release {config.name}: {parts.training.model.identity}, {pairs} pairs", *gates]
    )


def build(config: ReleaseBuildConfig) -> Summary:
    """Make the folder of a release.

    Raises:
        CCAIError: a gate is not passed, or the folder cannot be written.
    """
    parts = _parts(config)
    recipe, unknown = recipe_of(config, parts)
    counts = build_release(parts, config, config.out, config.lock, recipe)
    out = shlex.quote(str(config.out))
    return Summary(
        made={"release": str(config.out)},
        findings=tuple(f"{count} pairs {how}." for how, count in sorted(counts.items())),
        notices=(*(f"Not shown to be met: {gate}" for gate in parts.failed_gates), *unknown),
        next_commands=(
            f"python -m flows.release verify {out}",
            f"python -m flows.reproduce {out} --dry-run",
            f"python -m flows.release push {out} --to me/{shlex.quote(config.name)} --dry-run",
        ),
    )


def plan_verify(config: ReleaseVerifyConfig) -> str:
    """Say what would be checked."""
    return f"Checking {config.folder}."


def verify(config: ReleaseVerifyConfig) -> Summary:
    """Check that a release is as it was made.

    Raises:
        ArtifactError: it is not; names every file.
    """
    _refuse_changed(config.folder)
    is_signed = (config.folder / SIGNATURE_FILE).is_file()
    return Summary(
        made={"release": str(config.folder)},
        findings=("Every file is as it was made.",),
        notices=(_SIGNED,) if is_signed else (),
    )


def plan_smoke(config: ReleaseSmokeConfig) -> str:
    """Say what would be loaded by what."""
    by = config.python or "the Python that runs this"
    return f"Loading {config.folder} with {config.engine} by {by}; {config.tokens} tokens."


def smoke(config: ReleaseSmokeConfig) -> Summary:
    """Load a release in an engine, and compare what it writes first with transformers.

    Raises:
        CCAIError: the release was changed, or the engine cannot load it.
    """
    _refuse_changed(config.folder)
    reference = ask("transformers", config.folder, config)
    other = config.engine != "transformers"
    found = ask(config.engine, config.folder, config, reference) if other else reference
    same_tokens = found.ids == reference.ids
    likely = found.first in reference.likely
    pairs = zip(found.text, reference.text, strict=False)
    shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    findings = [
        f"{config.engine} {found.version} loads it and answers: {found.text!r}",
        *([] if same_tokens else ["It divides the prompt into other tokens than transformers."]),
        *([] if likely else ["What it writes first, transformers does not find likely."]),
        *([f"{shared} characters are as transformers writes them."] if other else []),
    ]
    return Summary(
        made={"release": str(config.folder)},
        findings=tuple(findings),
        passed=same_tokens and likely,
    )


def plan_push(config: ReleasePushConfig) -> str:
    """Say what would be uploaded.

    Raises:
        CCAIError: the release was changed, or the repository's name is none.
    """
    check_repository(config.to)
    files = upload_plan(config.folder)
    visible = "for everybody" if config.public else "private"
    lines = [f"  {name}  {size:,} bytes" for name, size in files.items()]
    return "\n".join([f"{config.to} ({visible}), {len(files)} files:", *lines])


def push(config: ReleasePushConfig) -> Summary:
    """Upload a release.

    Raises:
        CCAIError: it was changed, or the hub is away or refuses.
    """
    made = push_release(config.folder, config.to, private=not config.public)
    return Summary(made={"repository": made})


def _refuse_changed(folder: Path) -> None:
    if found := problems(folder):
        raise ArtifactError("\n".join([f"{folder}: is not as it was made.", *found]))


def _parts(config: ReleaseBuildConfig) -> Parts:
    return read_parts(
        config.training.resolve(),
        config.evaluation.resolve(),
        config.pairs.resolve(),
        config.constitution,
    )
