"""What the Prefect UI offers, registered with a real server, and what it refuses."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from datetime import time as time_of_day
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect import flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId
from prefect.exceptions import PrefectHTTPStatusError

from ccai_core.errors import ConfigError
from flows.cli import preset_names
from flows.demo import filled_form
from flows.offers import all_offers, settings_of
from flows.serve import serve
from flows.serve_config import ServeConfig
from flows.serve_plan import deployment_of, plan_serve, prefect_yaml
from tasks.limits import cluster_limit, deployment_limit, run_slot, set_limits

ROOT = Path(__file__).parents[2]


def test_every_flow_and_every_preset_is_offered() -> None:
    names = {offer.full_name for offer in all_offers()}
    whole_way = {preset for preset in preset_names() if preset != "validation"}
    assert {f"poc/{preset}" for preset in whole_way} <= names
    assert "poc/validation" not in names
    assert "validation/validation" in names
    flows = {"training", "evaluation", "validation", "sweep", "nightly", "promote", "prepare-data"}
    assert {f"{flow}/default" for flow in flows} <= names
    assert all(name in plan_serve(ServeConfig()) for name in names)


def fields(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for model in schema["definitions"].values():
        yield from model.get("properties", {}).values()


@pytest.mark.parametrize("offer", all_offers(), ids=lambda offer: offer.full_name)
def test_a_form_explains_itself(offer: Any) -> None:
    made = deployment_of(offer, ServeConfig())
    assert made.description
    assert made.tags[0] == "ccai"
    schema = made._parameter_openapi_schema.model_dump()
    # Where a group's description says what its model says, the schema has it there alone.
    assert all(each.get("description") or "$ref" in each for each in fields(schema))
    assert all(model.get("description") for model in schema["definitions"].values())
    settings = settings_of(offer.flow)
    required = [name for name, field in settings.model_fields.items() if field.is_required()]
    # What the form begins with is valid as it is, but for what only its user knows.
    settings.model_validate({**dict.fromkeys(required, "x"), **made.parameters["config"]})


# What Prefect's form keeps of a field's schema when it asks the server whether a value is right.
KEPT = frozenset(
    "$ref anyOf allOf default const description enum format items prefixItems properties required "
    "title type maxItems minItems".split()
)


def as_the_form_sends_it(schema: dict[str, Any]) -> dict[str, Any]:
    kept = {word: value for word, value in schema.items() if word in KEPT | {"definitions"}}
    for of in ("definitions", "properties"):
        if of in kept:
            kept[of] = {name: as_the_form_sends_it(each) for name, each in kept[of].items()}
    return kept


@pytest.mark.parametrize(
    ("field", "wrong", "said"),
    [
        ({"max_pairs": 0}, ["max_pairs"], "minimum of 1"),
        ({"training": {"learning_rate": 0}}, ["training", "learning_rate"], "minimum of 0"),
        ({"device": "tpu"}, ["device"], "tpu"),
        ({"scenarios": "perhaps"}, ["scenarios"], "boolean"),
    ],
)
def test_a_wrong_value_is_explained_next_to_its_field(
    field: dict[str, Any], wrong: list[str], said: str
) -> None:
    from prefect.utilities.schema_tools.validation import build_error_obj, validate

    (offer,) = (each for each in all_offers() if each.full_name == "poc/quick")
    made = deployment_of(offer, ServeConfig())
    schema = as_the_form_sends_it(made._parameter_openapi_schema.model_dump())
    begun_with = made.parameters["config"]
    assert build_error_obj(validate({"config": begun_with}, schema))["valid"]
    answer = build_error_obj(validate({"config": {**begun_with, **field}}, schema))
    for name in ["config", *wrong]:
        (answer,) = answer["errors"]
        assert answer["property"] == name
    assert said in answer["errors"][0]


@pytest.mark.parametrize("offer", all_offers()[:1], ids=lambda offer: offer.full_name)
def test_fields_keep_their_order_in_a_database_that_sorts_keys(offer: Any) -> None:
    definitions = deployment_of(offer, ServeConfig())._parameter_openapi_schema.model_dump()
    config = settings_of(offer.flow)
    fields = definitions["definitions"][config.__name__]["properties"]
    placed = sorted(fields, key=lambda name: fields[name]["position"])
    assert placed == list(config.model_fields)


def test_the_nightly_form_and_its_schedule_say_the_same() -> None:
    config = ServeConfig(nightly_at=time_of_day(3, 30), time_zone="Europe/Berlin")
    (offer,) = (each for each in all_offers() if each.nightly)
    made = deployment_of(offer, config)
    (schedule,) = made.schedules
    assert (schedule.schedule.cron, schedule.schedule.timezone) == ("30 3 * * *", "Europe/Berlin")
    assert made.parameters["config"] == {"at": "03:30", "time_zone": "Europe/Berlin"}


def test_prefect_yaml_is_what_serve_would_register() -> None:
    written = (ROOT / "prefect.yaml").read_text(encoding="utf-8")
    assert written.rstrip() == prefect_yaml(ServeConfig()), (
        "run `python -m flows.serve --prefect-yaml`"
    )
    entries = yaml.safe_load(written)["deployments"]
    assert len(entries) == len(all_offers())
    assert all((ROOT / entry["entrypoint"].split(":")[0]).is_file() for entry in entries)


def test_limits_are_checked_before_anything_is_registered() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        ServeConfig(limits={"my-cluster": 0})
    with pytest.raises(ValueError, match="Europe/Berlin"):
        ServeConfig(time_zone="Europe/Berlinn")


def test_without_a_server_it_says_how_to_get_one() -> None:
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with (
        temporary_settings(restore_defaults={PREFECT_API_URL}),
        pytest.raises(ConfigError, match="make up"),
    ):
        serve(ServeConfig())


def test_a_group_of_a_form_is_changed_field_by_field() -> None:
    form = {"config": {"max_pairs": 8, "training": {"epochs": 3}}}
    changed = filled_form(form, {"training.learning_rate": "1e-5", "scenarios": "false"})
    assert changed["config"] == {
        "max_pairs": 8,
        "training": {"epochs": 3, "learning_rate": "1e-5"},
        "scenarios": False,
    }
    assert form["config"]["training"] == {"epochs": 3}


@pytest.fixture
def client(server: str) -> Iterator[SyncPrefectClient]:
    with get_client(sync_client=True) as made:
        yield made


def test_registered_twice_it_is_one_deployment_that_refuses_wrong_values(
    client: SyncPrefectClient,
) -> None:
    (offer,) = (each for each in all_offers() if each.full_name == "poc/quick")
    first, second = (deployment_of(offer, ServeConfig()).apply() for _ in range(2))
    assert first == second
    there = client.read_deployment(first)
    assert there.enforce_parameter_schema
    for wrong in ({"max_pairs": 0}, {"max_pair": 3}, {"device": "tpu"}, {"training": {"zero": 9}}):
        form = {"config": {**there.parameters["config"], **wrong}}
        with pytest.raises(PrefectHTTPStatusError) as refused:
            client.create_flow_run_from_deployment(first, parameters=form)
        assert next(iter(wrong)) in refused.value.response.text
    started = DeploymentFilter(id=DeploymentFilterId(any_=[first]))
    assert not client.read_flow_runs(deployment_filter=started)


@pytest.mark.parametrize(("clusters", "deployments"), [(1, 9), (9, 1)])
def test_a_limit_lets_so_many_in_and_the_others_wait(
    server: str, monkeypatch: pytest.MonkeyPatch, clusters: int, deployments: int
) -> None:
    monkeypatch.setattr("tasks.limits._LOOK_EVERY_S", 0.5)
    monkeypatch.setattr("tasks.limits.deployment.get_id", lambda: "a deployment's")
    monkeypatch.setattr("tasks.limits.deployment.get_name", lambda: "default")
    for _ in range(2):
        set_limits({"clusters/mine.yaml": clusters}, {"waits/default": deployments})
    inside, most = [], []

    @flow(name="waits")
    def waits() -> None:
        with run_slot("mine"):
            inside.append(1)
            most.append(len(inside))
            time.sleep(1)
            inside.pop()

    threads = [threading.Thread(target=waits) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert most == [1, 1]


def test_without_a_limit_nobody_waits_and_nothing_is_said(
    server: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("tasks.limits.deployment.get_id", lambda: "a deployment's")
    monkeypatch.setattr("tasks.limits.deployment.get_name", lambda: "default")
    with caplog.at_level("WARNING"), run_slot("nobody-limits-this"):
        pass
    assert not caplog.records
    assert cluster_limit("a/b c.yaml") == cluster_limit("b c") == "ccai-cluster-b-c"
    assert deployment_limit("poc/quick") == "ccai-deployment-poc-quick"
