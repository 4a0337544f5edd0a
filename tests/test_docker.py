"""Images and services: linted, and held to what they promise; the proxy also runs for real."""

from __future__ import annotations

import base64
import re
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import yaml

from infra.mlflow_store import open_experiment
from tests.infra.test_tracking import Server, free_port

DOCKER = Path(__file__).parents[1] / "docker"
COMPOSE = yaml.safe_load((DOCKER / "compose.yaml").read_text("utf-8"))
SERVICES = COMPOSE["services"]
VERSION = re.compile(r"[\w./-]+:\d+\.\d+[\w.-]*")
_BIN = Path(sys.executable).parent


def test_the_dockerfile_passes_hadolint():
    program = shutil.which("hadolint", path=str(_BIN)) or shutil.which("hadolint")
    if program is None:
        pytest.skip("hadolint is not installed")
    done = subprocess.run(
        [program, "--no-color", str(DOCKER / "Dockerfile")], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, "")


def stages() -> dict[str, tuple[str, str]]:
    """Return each stage of the Dockerfile: what it is from, and its text."""
    text = (DOCKER / "Dockerfile").read_text("utf-8")
    parts = re.split(r"^FROM (\S+) AS (\S+)$", text, flags=re.MULTILINE)[1:]
    return {parts[i + 1]: (parts[i], parts[i + 2]) for i in range(0, len(parts), 3)}


@pytest.mark.parametrize("target", ["controller", "evaluation", "trainer"])
def test_an_image_is_not_run_by_root_and_holds_no_build(target):
    found = stages()
    chain = [target]
    while found[chain[-1]][0] in found:
        chain.append(found[chain[-1]][0])
    text = "".join(found[name][1] for name in chain)
    assert "USER 1000:1000" in text
    assert f"COPY --from={target}-build /opt/ccai /opt/ccai" in text
    assert not re.search(r"pip install|COPY \.", text)


def test_whatever_an_image_is_from_has_a_version():
    text = (DOCKER / "Dockerfile").read_text("utf-8")
    bases = re.findall(r"^ARG \w+_IMAGE=(\S+)$", text, re.MULTILINE)
    bases += [each["image"] for each in SERVICES.values() if "build" not in each]
    for file in DOCKER.glob("apptainer/*.def"):
        bases += re.findall(r"^From: (\S+)$", file.read_text("utf-8"), re.MULTILINE)
    assert len(bases) >= 6
    assert all(VERSION.fullmatch(base) for base in bases), bases


def test_apptainer_files_are_of_the_same_images_and_copy_the_same():
    docker = (DOCKER / "Dockerfile").read_text("utf-8")
    copied = set(re.findall(r"^COPY (\w+) \1$", docker, re.MULTILINE))
    for file in DOCKER.glob("apptainer/*.def"):
        text = file.read_text("utf-8")
        assert re.search(r"^From: (\S+)$", text, re.MULTILINE)[1] in docker
        assert copied <= set(re.findall(r"^    (\w+) /src/\1$", text, re.MULTILINE))
        assert re.findall(r"--no-deps (.*)", text)[0] in docker
        for section in ("%post", "%environment", "%runscript", "%test"):
            assert f"\n{section}\n" in text


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_a_service_is_asked_for_its_health_and_may_do_little(name):
    service = SERVICES[name]
    assert service["healthcheck"]["test"][0] == "CMD"
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert service.get("user") in ("1000:1000", "postgres") or "unprivileged" in service["image"]
    assert service["restart"] == "unless-stopped"
    for needed, how in service.get("depends_on", {}).items():
        assert "healthcheck" in SERVICES[needed]
        assert how == {"condition": "service_healthy"}


def test_only_the_proxy_can_be_reached_and_only_from_this_machine():
    ports = {name: each["ports"] for name, each in SERVICES.items() if "ports" in each}
    assert list(ports) == ["proxy"]
    assert all(each.startswith("${CCAI_BIND:-127.0.0.1}:") for each in ports["proxy"])
    assert COMPOSE["networks"]["inside"] == {"internal": True}
    assert SERVICES["postgres"]["networks"] == ["inside"]


def test_passwords_have_to_be_set_and_are_no_words_of_a_command():
    text = (DOCKER / "compose.yaml").read_text("utf-8")
    example = (DOCKER / "example.env").read_text("utf-8")
    for name in set(re.findall(r"\$\{(\w+PASSWORD)", text)):
        assert set(re.findall(rf"\$\{{{name}(\S*?)\}}", text)) <= {":?", ":?set"} or re.search(
            rf"\$\{{{name}:\?", text
        )
        assert not re.search(rf"\$\{{{name}\}}", text)
        assert f"\n{name}=\n" in example
    for service in SERVICES.values():
        words = " ".join([*service.get("entrypoint", ()), *service.get("command", ())])
        assert "PASSWORD" not in words
        assert "://" not in words


def test_what_compose_mounts_is_there_and_the_proxy_knows_its_services():
    mounted = [v for each in SERVICES.values() for v in each.get("volumes", ()) if v[0] == "."]
    assert len(mounted) == 2
    for volume in mounted:
        assert (DOCKER / volume.split(":")[0]).is_file()
    upstream = re.findall(r"proxy_pass http://(\w+):(\d+);", (DOCKER / "nginx.conf").read_text())
    assert dict(upstream) == {"prefect": "4200", "mlflow": "5000"}
    assert upstream[0][1] in SERVICES["prefect"]["command"]
    assert upstream[1][1] in SERVICES["mlflow"]["command"]


def ask(url: str, host: str | None = None, user: str | None = None) -> int:
    request = urllib.request.Request(url)
    if host:
        request.add_header("Host", host)
    if user:
        request.add_header("Authorization", f"Basic {base64.b64encode(user.encode()).decode()}")
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


@pytest.mark.slow
def test_behind_the_proxy_mlflow_answers_only_who_may_and_only_by_its_names(tmp_path, monkeypatch):
    nginx = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/bin")
    if nginx is None:
        pytest.skip("nginx is not installed")
    open_experiment(f"sqlite:///{tmp_path / 'mlflow.db'}", "ccai", "mlflow-artifacts:/")
    allowed = SERVICES["mlflow"]["environment"]["MLFLOW_SERVER_ALLOWED_HOSTS"]
    allowed = allowed.replace("${CCAI_MLFLOW_HOST:-localhost}", "ccai.example.org:5000")
    monkeypatch.setenv("MLFLOW_SERVER_ALLOWED_HOSTS", allowed)
    server = Server(tmp_path / "mlflow.db", tmp_path / "artifacts")
    ports = free_port(), free_port()
    (tmp_path / "users").write_text("me:{PLAIN}right\n")
    (tmp_path / "users").chmod(0o644)
    text = (DOCKER / "nginx.conf").read_text("utf-8")
    for old, new in {
        "/tmp/": f"{tmp_path}/",
        "http://prefect:4200": server.uri,
        "http://mlflow:5000": server.uri,
        "listen 4200": f"listen 127.0.0.1:{ports[0]}",
        "listen 5000": f"listen 127.0.0.1:{ports[1]}",
        "/run/secrets/mlflow_users": str(tmp_path / "users"),
    }.items():
        assert old in text
        text = text.replace(old, new)
    # In the image all of it is one user; here its processes could not read the folder otherwise.
    (tmp_path / "nginx.conf").write_text(f"user root;\n{text}")
    server.start()
    proxy = subprocess.Popen([nginx, "-c", str(tmp_path / "nginx.conf"), "-g", "daemon off;"])
    url = f"http://127.0.0.1:{ports[1]}"
    try:
        server.wait()
        deadline = time.monotonic() + 30
        while proxy.poll() is None and time.monotonic() < deadline:
            try:
                assert ask(f"{url}/proxy-health") == 204
                break
            except urllib.error.URLError:
                time.sleep(0.1)
        api = f"{url}/api/2.0/mlflow/experiments/get-by-name?experiment_name=ccai"
        assert ask(api) == 401
        assert ask(api, user="me:wrong") == 401
        assert ask(api, user="me:right") == 200
        assert ask(api, user="me:right", host="ccai.example.org:5000") == 200
        assert ask(api, user="me:right", host="mlflow:5000") == 200
        assert ask(api, user="me:right", host="evil.example.org") == 403
    finally:
        proxy.terminate()
        proxy.wait(20)
        server.stop()
