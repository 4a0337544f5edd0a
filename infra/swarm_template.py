"""llm-swarm's Slurm templates, as they are: what they ask of Slurm, and what they run.

A template is a batch script with placeholders. Its `#SBATCH` lines become options of the
instance's job; its body becomes the program that the instance runs in place of an engine's own,
with `infra.swarm_launch` in between.

    template = read_template(Path("templates/tgi_h100.template.slurm"), values)
    executable = install(template, fleet_folder, "tgi")
"""

from __future__ import annotations

import hashlib
import logging
import re
import shlex
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ccai_core.errors import ConfigError
from ccai_core.files import write_whole
from infra.cluster import ClusterConfig, EngineName, RoleConfig
from infra.swarm_sbatch import Asks, asks_of

logger = logging.getLogger(__name__)

HOSTS = "{{slurm_hosts_path}}"
"""The one placeholder that is filled on the node: a file of that very start of the instance."""

# The body is a shell's, and a placeholder may stand there bare, in quotes or in a here-document.
# No one way of quoting is right in all of these; without these characters none is needed.
_SAFE = re.compile(r"[A-Za-z0-9_./][A-Za-z0-9_./:@+=,-]*")
_PROGRAM: Mapping[EngineName, str] = {"tgi": "text-generation-launcher", "vllm": "vllm"}
_LAUNCHER = """\
#!/bin/sh
exec {python} -P -c '
import sys; sys.path.insert(0, sys.argv.pop(1)); from infra.swarm_launch import main; main()
' {root} {script} "$@"
"""


@dataclass(frozen=True)
class Template:
    """A template with its placeholders filled, all but that of the hosts file."""

    file: Path
    text: str
    asks: Asks = field(default_factory=Asks)

    def on(self, cluster: ClusterConfig) -> ClusterConfig:
        """Return the profile with what the template asks for put over it."""
        own = cluster.roles.get("fleet", RoleConfig())
        said = {name: getattr(own, name) for name in own.model_fields_set}
        sbatch = {**own.sbatch, **self.asks.sbatch}
        role = RoleConfig.model_validate({**said, **self.asks.role, "sbatch": sbatch})
        return cluster.model_copy(update={"roles": {**cluster.roles, "fleet": role}})


def placeholders(text: str) -> frozenset[str]:
    """Return the names that stand in a template between double braces."""
    return frozenset(re.findall(r"\{\{(\w+)\}\}", text))


def read_template(file: Path, text: str, values: Mapping[str, str]) -> Template:
    """Fill a template and read its `#SBATCH` lines.

    Args:
        file: Where it comes from, for messages.
        text: What it says.
        values: What its placeholders stand for.

    Raises:
        ConfigError: a value could be taken for shell, or the template asks for what an instance
            cannot be.
    """
    if HOSTS not in text:
        raise ConfigError(
            f"{file}: has no {HOSTS}. A template says there where its server answers: "
            f'echo "http://$(hostname):$PORT" >> {HOSTS}'
        )
    if not text.startswith("#!"):
        raise ConfigError(f"{file}: must begin with #! and its interpreter, e.g. #!/bin/bash.")
    for name, value in values.items():
        if name in placeholders(text) and not _SAFE.fullmatch(value):
            raise ConfigError(
                f"{name} {value!r} cannot go into the shell script {file}: letters, digits and "
                "any of _ . / : @ + = , - (not first) are safe there. Use a link with a plain "
                "name, or leave the template out: the engine is then started without a shell."
            )
        text = text.replace("{{" + name + "}}", value)
    return Template(file, text, asks_of(_directives(file, text)))


def install(template: Template, fleet: Path, engine: EngineName) -> str:
    """Write the template's body and a program that runs it; return the program's path.

    Another text is another path, so that a fleet tells its instances from those of an older one.
    """
    digest = hashlib.sha256(template.text.encode()).hexdigest()[:12]
    folder = fleet / "template" / digest
    script, program = folder / "template.slurm", folder / _PROGRAM[engine]
    write_whole(script, template.text)
    root = str(Path(__file__).resolve().parents[1])
    words = {"python": sys.executable, "root": root, "script": str(script)}
    quoted = {name: shlex.quote(word) for name, word in words.items()}
    write_whole(program, _LAUNCHER.format(**quoted))
    program.chmod(0o755)
    return str(program)


def can_run(engine: EngineName) -> bool:
    """Tell whether llm-swarm has templates for this engine."""
    return engine in _PROGRAM


def _directives(file: Path, text: str) -> Iterator[str]:
    """Yield the words of the #SBATCH lines; like sbatch, none below the first command."""
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip() and not line.startswith("#"):
            return
        if line.startswith("#SBATCH"):
            try:
                yield from shlex.split(line.removeprefix("#SBATCH"), comments=True)
            except ValueError as error:
                raise ConfigError(f"{file} line {number}: {error}.") from None
