r"""A trained model as a folder that others can check, use and make again.

    python -m flows.release build --training runs/poc/artifacts/training-3f2a \
        --evaluation runs/poc/artifacts/evaluation-77c0 --pairs runs/poc/artifacts/pairs-12ab \
        --name ccai-7b --licence apache-2.0
    python -m flows.release verify release
    python -m flows.release smoke release --engine vllm --python vllm-env/bin/python
    python -m flows.release push release --to me/ccai-7b --dry-run

`build` refuses while the evaluation does not show that the success criteria are met; `--force
'the reason'` puts the reason into the card instead.
"""

import sys
from collections.abc import Sequence

from flows.cli import run_command
from flows.release_config import (
    ReleaseBuildConfig,
    ReleasePushConfig,
    ReleaseSmokeConfig,
    ReleaseVerifyConfig,
)
from flows.release_steps import (
    build,
    plan_build,
    plan_push,
    plan_smoke,
    plan_verify,
    push,
    smoke,
    verify,
)

_PROG = "python -m flows.release"


def main(arguments: Sequence[str]) -> int:
    """Run one of the commands; returns the exit code."""
    command, *rest = arguments or ["--help"]
    prog = f"{_PROG} {command}"
    if command == "build":
        about = "Make the folder of a release."
        return run_command(
            ReleaseBuildConfig, build, plan_build, prog=prog, about=about, arguments=rest
        )
    if command == "verify":
        about = "Check that a release is as it was made."
        return run_command(
            ReleaseVerifyConfig, verify, plan_verify, prog=prog, about=about, arguments=rest
        )
    if command == "smoke":
        about = "Load a release with transformers, vLLM or (converted) llama.cpp, and let it write."
        return run_command(
            ReleaseSmokeConfig, smoke, plan_smoke, prog=prog, about=about, arguments=rest
        )
    if command == "push":
        about = "Upload a release to the hub; --dry-run says what would be uploaded."
        return run_command(
            ReleasePushConfig, push, plan_push, prog=prog, about=about, arguments=rest
        )
    print(f"usage: {_PROG} {{build,verify,smoke,push}} [--help]\n\n{__doc__}")
    return 0 if command in ("-h", "--help") else 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
