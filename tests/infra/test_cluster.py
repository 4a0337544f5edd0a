from __future__ import annotations

from pathlib import Path

import pytest

from ccai_core.errors import ConfigError
from infra.cluster import (
    ClusterConfig,
    Container,
    FleetDefaults,
    Limits,
    RoleConfig,
    available_clusters,
    load_cluster,
)

MINE = "kind: local\nlimits:\n  max_jobs: 7\n"


def test_the_shipped_profile_loads_by_name() -> None:
    cluster = load_cluster("local")
    assert (cluster.name, cluster.kind, cluster.device) == ("local", "local", "auto")
    assert cluster.limits.max_jobs >= 1
    assert cluster.lease_seconds == 60


def test_every_shipped_profile_is_valid(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CCAI_STORAGE", str(tmp_path))
    monkeypatch.setenv("USER", "ada")
    profiles = {name: load_cluster(name) for name in available_clusters()}
    assert {name: each.name for name, each in profiles.items()} == {
        name: name for name in ("local", "slurm-apptainer", "slurm-cpu", "slurm-pyxis")
    }
    pyxis, apptainer, cpu = (profiles[f"slurm-{name}"] for name in ("pyxis", "apptainer", "cpu"))
    assert (pyxis.gpu_type, pyxis.gpus_per_node, pyxis.container.runtime) == ("h100", 8, "pyxis")
    assert (apptainer.gpu_type, apptainer.gpus_per_node) == ("a100", 4)
    assert apptainer.container.runtime == "apptainer"
    assert apptainer.storage == Path("/scratch/ada/ccai")
    assert cpu.fleet
    assert (cpu.fleet.engine, cpu.fleet.instances, cpu.fleet.gpus) == ("transformers", 2, 0)
    assert (cpu.device, cpu.container.runtime) == ("cpu", "none")


def test_the_environment_can_say_where_storage_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CCAI_STORAGE", "/shared/mine")
    assert load_cluster("slurm-cpu").storage == Path("/shared/mine")
    monkeypatch.delenv("CCAI_STORAGE")
    with pytest.raises(ConfigError, match=r"storage: .*CCAI_STORAGE is not set.*export CCAI_ST"):
        load_cluster("slurm-cpu")


@pytest.mark.parametrize(
    ("storage", "expected"),
    [("~/x", "/home/ada/x"), ("${CCAI_T}/x", "/t/x"), ("/a/$CCAI_T", "/a/t"), ("/plain", "/plain")],
)
def test_storage_is_written_out(
    monkeypatch: pytest.MonkeyPatch, storage: str, expected: str
) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    monkeypatch.setenv("CCAI_T", "/t" if storage[0] == "$" else "t")
    assert ClusterConfig(name="x", kind="slurm", storage=storage).storage == Path(expected)


def test_storage_must_be_a_whole_path() -> None:
    with pytest.raises(ValueError, match="must be a whole path"):
        ClusterConfig(name="x", kind="slurm", storage="runs")


def test_the_search_path_is_a_list_of_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.yaml").write_text(MINE)
    monkeypatch.setenv("CCAI_CLUSTER_PATH", f"{tmp_path / 'one'}:{tmp_path / 'two'}")
    assert load_cluster("two") == ClusterConfig(name="two", kind="local", limits=Limits(max_jobs=7))


def test_the_working_directory_is_searched_for_profiles_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.yaml").write_text(MINE)
    (tmp_path / "mkdocs.yml").write_text("site_name: docs\n")
    monkeypatch.chdir(tmp_path)
    assert load_cluster("mine").limits.max_jobs == 7
    assert "mkdocs" not in available_clusters()


def test_a_shipped_name_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "local.yaml").write_text(MINE)
    monkeypatch.setenv("CCAI_CLUSTER_PATH", str(tmp_path))
    assert load_cluster("local").limits.max_jobs != 7
    assert load_cluster(tmp_path / "local.yaml").limits.max_jobs == 7


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"'locl'\. Did you mean 'local'\?.*Available: local"):
        load_cluster("locl")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "kind: local\nlimits: {max_job: 2}\n",
            r"unknown key 'limits.max_job'.*Did you mean 'max_jobs'",
        ),
        ("kind: cloud\n", r"kind: .*got 'cloud'"),
        ("kind: local\nlimits: {max_jobs: 0}\n", r"limits.max_jobs: .*got 0"),
        ("kind: [local\nname: x\n", r"own\.yaml line \d+: is not valid YAML"),
    ],
)
def test_a_wrong_profile_is_explained(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "own.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_cluster(str(tmp_path / "own.yaml"))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: cannot be read"):
        load_cluster(tmp_path / "nowhere.yaml")


def test_the_page_on_clusters_has_every_key_as_it_is() -> None:
    page = (Path(__file__).parents[2] / "docs" / "clusters.md").read_text(encoding="utf-8")
    for kind in (RoleConfig, ClusterConfig, Container, Limits, FleetDefaults):
        for name, field in kind.model_fields.items():
            (row,) = (line for line in page.splitlines() if line.startswith(f"| `{name}` |"))
            assert f"| {field.description}" in row
            if isinstance(field.default, str | int | float):
                shown = field.default if isinstance(field.default, str) else f"{field.default:g}"
                assert f"| `{shown}` |" in row
