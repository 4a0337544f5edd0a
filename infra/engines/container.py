"""Wrap a command into a container by the profile's runtime: pyxis (srun), apptainer, or none.

argv = wrap(spec.container, "vllm", ["vllm", "serve", ...], gpus=8, cpus=64, variables=["HF_TOKEN"])
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from infra.cluster import Container, EngineName

# Slurm gives notice of a time limit to every step of a job (USR2). It is meant for the instance,
# which then drains; the engine must go on until that is done, and USR2 would end it.
_DEAF_TO_NOTICE = ("sh", "-c", 'trap "" USR1 USR2; exec "$@"', "sh")


def wrap(
    container: Container,
    engine: EngineName,
    command: Sequence[str],
    *,
    gpus: int,
    cpus: int | None,
    variables: Sequence[str],
) -> list[str]:
    """Return the command as it is started on the host.

    Args:
        container: Runtime, images and mounts.
        engine: Whose image to take.
        command: What runs inside.
        gpus: Whether the container needs the GPUs' driver.
        cpus: Cores of the job, where it says how many.
        variables: Names of environment variables that must arrive inside. Values stay out of
            the command line, which every user of the machine can read.
    """
    if container.runtime == "pyxis":
        step = _pyxis(container, container.images[engine], cpus, variables)
        return [*step, *_DEAF_TO_NOTICE, *command]
    if container.runtime == "apptainer":
        return [*_apptainer(container, container.images[engine], gpus), *command]
    return list(command)


def container_variables(container: Container, variables: Mapping[str, str]) -> dict[str, str]:
    """Return what must be in the environment besides, so that `variables` arrive inside."""
    if container.runtime == "none":
        return {}
    # The packages of the host's Python and of the user's home are not for the image's.
    apart = {"PYTHONPATH": "", "PYTHONNOUSERSITE": "1"}
    if container.runtime == "pyxis":
        return apart
    # The host's variables arrive anyway, unless the site sets --cleanenv or the image sets them.
    return apart | {f"APPTAINERENV_{n}": value for n, value in {**apart, **variables}.items()}


def _pyxis(
    container: Container, image: str, cpus: int | None, variables: Sequence[str]
) -> list[str]:
    # A step within the step that we run in. --overlap and --mem=0 let it share what the job has
    # (it would wait, or be refused); srun no longer takes the number of cores from the job.
    words = ["srun", "--overlap", "--mem=0", "--ntasks=1", "--cpu-bind=none"]
    words += ["--kill-on-bad-exit=1", "--unbuffered"]
    if cpus is not None:
        words.append(f"--cpus-per-task={cpus}")
    words += [f"--container-image={image}", "--no-container-mount-home"]
    # The host's variables arrive anyway, except where the image sets them too.
    words.append(f"--container-env={','.join(variables)}")
    if container.mounts:
        words.append(f"--container-mounts={','.join(container.mounts)}")
    return words


def _apptainer(container: Container, image: str, gpus: int) -> list[str]:
    # With the home folder: an image cannot be written to, and engines keep what they compile there.
    words = ["apptainer", "exec"]
    if gpus:
        words.append("--nv")
    for mount in container.mounts:
        words += ["--bind", mount]
    return [*words, image]
