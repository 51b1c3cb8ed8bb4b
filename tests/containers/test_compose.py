"""compose.yaml keeps Compose's schema, and gives each service no more than it needs."""

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator

from leadloop import __version__
from leadloop.settings import Settings
from tests.containers.composition import read_compose

_SCHEMA = json.loads((Path(__file__).parent / "schemas" / "compose-spec.json").read_text())
_PASSWORDS = {"DATABASE_PASSWORD": "d-secret", "PREFECT_PASSWORD": "p-secret"}
_OURS = ("prefect", "init", "counts", "worker", "page", "sandbox")


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    """The file with passwords filled in."""
    return read_compose(_PASSWORDS)


def test_compose_understands_every_key(compose: dict[str, Any]) -> None:
    """A misspelt key is found here, not by Compose on a user's machine."""
    errors = Draft7Validator(_SCHEMA).iter_errors(compose)
    assert [f"{error.json_path}: {error.message}" for error in errors] == []
    spoilt = {**compose, "services": {"page": {**compose["services"]["page"], "port": 1}}}
    assert not Draft7Validator(_SCHEMA).is_valid(spoilt)


@pytest.mark.parametrize("missing", _PASSWORDS)
def test_nothing_starts_without_a_password(missing: str) -> None:
    """There is no default password."""
    with pytest.raises(KeyError, match=missing):
        read_compose({name: value for name, value in _PASSWORDS.items() if name != missing})


def test_services_run_this_release(compose: dict[str, Any]) -> None:
    """All but Postgres run one image, of this version, without privileges."""
    services = compose["services"]
    assert set(services) == {"postgres", *_OURS}
    for name in _OURS:
        assert services[name]["image"] == f"leadloop:{__version__}"
        assert services[name]["cap_drop"] == ["ALL"]
        assert "user" not in services[name], "the image's own user is not root"


def test_no_service_waits_for_the_count_of_an_upgrade(compose: dict[str, Any]) -> None:
    """Opt-outs go while rows are counted, and if that fails: `init` migrates and deploys alone."""
    services = compose["services"]
    migrated = {"init": {"condition": "service_completed_successfully"}}
    assert services["init"]["command"][2] == "leadloop init --counts none && leadloop deploy"
    assert services["counts"]["command"] == ["leadloop", "init"]
    assert services["counts"]["restart"] == services["init"]["restart"] == "no"
    for name in ("worker", "page", "counts"):
        assert services[name]["depends_on"] == migrated
    assert all("counts" not in service.get("depends_on", {}) for service in services.values())


def test_the_login_reaches_the_worker_alone(compose: dict[str, Any]) -> None:
    """The page and Prefect's server have no use for it."""
    services = compose["services"]
    assert [name for name, service in services.items() if "env_file" in service] == ["worker"]
    for service in services.values():
        assert not {"LEADLOOP_API_TOKEN", "LEADLOOP_PASSWORD"} & set(service.get("environment", {}))
    assert "LEADLOOP_DATABASE_URL" not in services["prefect"]["environment"]


def test_ports_are_published_on_loopback(compose: dict[str, Any]) -> None:
    """Whoever starts it on a server publishes neither the page nor Prefect to the network."""
    ports = [port for each in compose["services"].values() for port in each.get("ports", ())]
    assert sorted(ports) == ["127.0.0.1:4200:4200", "127.0.0.1:8501:8501"]


def test_the_sandbox_starts_only_if_it_is_asked_for(compose: dict[str, Any]) -> None:
    """A production stack has no stand-in of the vendor."""
    profiles = {name: each.get("profiles") for name, each in compose["services"].items()}
    assert {name for name, given in profiles.items() if given} == {"sandbox"}


def test_settings_exist(compose: dict[str, Any]) -> None:
    """A variable that is set in compose.yaml is a setting."""
    for service in compose["services"].values():
        for name in service.get("environment", {}):
            if name.startswith("LEADLOOP_"):
                assert name.removeprefix("LEADLOOP_").lower() in Settings.model_fields
