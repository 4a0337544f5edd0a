"""What the commands of a release do: make it, check it, upload it.

summary = verify(ReleaseVerifyConfig(folder=Path("release")))
"""

from __future__ import annotations

import shlex

from ccai_core.dataset_export import check_repository
from ccai_core.errors import ArtifactError
from ccai_core.release.build import build_release
from ccai_core.release.checksums import problems
from ccai_core.release.parts import Parts, read_parts
from ccai_core.release.publish import push_release, upload_plan
from flows.release_config import ReleaseBuildConfig, ReleasePushConfig, ReleaseVerifyConfig
from flows.release_recipe import recipe_of
from flows.results import Summary


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
    if found := problems(config.folder):
        raise ArtifactError("\n".join([f"{config.folder}: is not as it was made.", *found]))
    return Summary(
        made={"release": str(config.folder)}, findings=("Every file is as it was made.",)
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


def _parts(config: ReleaseBuildConfig) -> Parts:
    return read_parts(
        config.training.resolve(),
        config.evaluation.resolve(),
        config.pairs.resolve(),
        config.constitution,
    )
