"""llm-swarm's templates: what their `#SBATCH` lines come to, and what may be filled in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ccai_core.errors import ConfigError
from infra.cluster import ClusterConfig, RoleConfig
from infra.swarm_config import set_up
from infra.swarm_launch import step_environment
from infra.swarm_sbatch import asks_of
from infra.swarm_template import read_template
from tests.infra.swarms import config, template

HOSTS = "echo http://x:1 >> {{slurm_hosts_path}}\n"


@pytest.mark.parametrize(
    ("line", "plan", "role", "sbatch"),
    [
        ("--partition hopper-prod -A research", {},
         {"partition": "hopper-prod", "account": "research"}, {}),
        ("--cpus-per-task=12 --mem-per-cpu=11G", {"cpus": 12, "memory_gb": 132 * 2**30 / 1e9},
         {}, {}),
        ("--gpus=8", {"gpus": 8}, {}, {}),
        ("--gpus-per-node h100:4", {"gpus": 4}, {"gpu_type": "h100"}, {}),
        ("--gres=gpu:a100:2", {"gpus": 2}, {"gpu_type": "a100"}, {}),
        ("--gres=gpu", {"gpus": 1}, {}, {}),
        ("--gres=nvme:1", {}, {}, {"gres": "nvme:1"}),
        ("-G2 --mem-per-gpu=10000", {"gpus": 2, "memory_gb": 20000 * 2**20 / 1e9}, {}, {}),
        ("-t 90 --exclusive", {"minutes": 90}, {}, {"exclusive": True}),
        ("-t 1-2:30", {"minutes": 26 * 60 + 30}, {}, {}),
        ("--time=01:30:30", {"minutes": 90.5}, {}, {}),
        ("--time=2:30", {"minutes": 2.5}, {}, {}),
        ("-N1 -n 1 --mem=0", {}, {}, {"mem": "0"}),
        ("-o slurm/logs/%x_%j.out -J name --signal=B:USR1@9 --requeue --export=ALL", {}, {}, {}),
        ("--mail-type=FAIL --comment 'two words' # a remark", {}, {},
         {"mail-type": "FAIL", "comment": "two words"}),
    ],
)  # fmt: skip
def test_what_a_template_asks_of_slurm(
    line: str, plan: dict[str, Any], role: dict[str, str], sbatch: dict[str, Any]
) -> None:
    text = f"#!/bin/bash\n#SBATCH {line}\n\n# words\n{HOSTS}#SBATCH --nodes=9\n"
    asks = read_template(Path("t"), text, {}).asks
    assert (asks.plan, asks.role, asks.sbatch) == (pytest.approx(plan), role, sbatch)


@pytest.mark.parametrize(
    "words",
    ["--nodes=2", "--ntasks 4", "--array=1-3", "-t x", "--mem=lots", "-Z 1", "word", "-c x"],
)
def test_what_an_instance_cannot_be_is_refused(words: str) -> None:
    with pytest.raises(ConfigError, match="#SBATCH"):
        asks_of(words.split())


def test_the_template_is_above_the_profile() -> None:
    role = RoleConfig(partition="theirs", qos="low", sbatch={"nice": 5})
    cluster = ClusterConfig(
        name="c", kind="slurm", storage=Path("/tmp"), account="all", roles={"fleet": role}
    )
    text = f"#!/bin/bash\n#SBATCH -p mine --exclusive\n{HOSTS}"
    fleet = read_template(Path("t"), text, {}).on(cluster).for_role("fleet")
    assert (fleet.partition, fleet.qos, fleet.account) == ("mine", "low", "all")
    assert fleet.sbatch == {"nice": 5, "exclusive": True}


def test_placeholders_are_filled_as_llm_swarm_fills_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    asked = config(
        tmp_path, inference_engine="tgi", slurm_template_path=template(tmp_path), gpus=2,
        model="/data/a-b_c.1/model", revision="refs/pr/3", minutes=30, dtype="bfloat16",
    )  # fmt: skip
    made = set_up(asked, lambda: 10**30)
    text = (made.folder / "template").glob("*/template.slurm").__next__().read_text()
    assert "export model=/data/a-b_c.1/model\n" in text
    assert 'export revision="refs/pr/3"\n' in text
    assert "--max-total-tokens 32768 " in text
    assert "--max-input-tokens 32668 " in text
    short = config(
        tmp_path, inference_engine="tgi", slurm_template_path=template(tmp_path), max_length=64
    )
    text_of_short = next(set_up(short, lambda: 1).folder.glob("template/*/*.slurm")).read_text()
    assert "--max-input-tokens 32 " in text_of_short
    assert "{{slurm_hosts_path}}" in text, "each start of an instance has a file of its own"
    assert (made.plan.serve.gpus, made.plan.cpus, made.plan.minutes) == (2, 1, 30)
    assert made.plan.memory_gb == pytest.approx(0.3, rel=0.1)
    assert made.cluster.for_role("fleet").partition == "main"
    same = set_up(asked, lambda: 10**30).plan.serve.executable
    other = set_up(asked, lambda: 1000).plan.serve.executable
    assert Path(str(same)).parent.name != Path(str(other)).parent.name


def test_what_a_template_cannot_do_is_said(tmp_path: Path) -> None:
    for text, said in (("#!/bin/sh\n", "slurm_hosts_path"), (HOSTS, "#!")):
        with pytest.raises(ConfigError, match=said):
            read_template(Path("mine.slurm"), text, {})
    path = template(tmp_path)
    with pytest.raises(ConfigError, match="tgi or vllm"):
        set_up(config(tmp_path, inference_engine="transformers", slurm_template_path=path,
                      ), lambda: 1)  # fmt: skip
    for own in ({"executable": "/x"}, {"options": ["--x"]}):
        asked = config(tmp_path, inference_engine="tgi", slurm_template_path=path, **own)
        with pytest.raises(ConfigError, match="its own command line"):
            set_up(asked, lambda: 1)


def test_a_templates_own_srun_gets_what_the_job_has() -> None:
    assert step_environment({"A": "b"}) == {"A": "b"}
    given = {"SLURM_JOB_ID": "1", "SLURM_CPUS_PER_TASK": "12", "SLURM_EXPORT_ENV": "PATH"}
    made = step_environment(given)
    assert (made["SLURM_OVERLAP"], made["SLURM_EXPORT_ENV"]) == ("1", "ALL")
    assert made["SRUN_CPUS_PER_TASK"] == "12"
