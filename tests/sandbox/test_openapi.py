import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import requests
from openapi_spec_validator import validate

from leadloop import sandbox
from tests.sandbox.http_client import SandboxClient, StartSandbox, lead

STATIC = Path(sandbox.__file__).with_name("openapi.json")
CREATE = "/api/v1/leads/create/{campaign_id}/"
RESPONSES = "/api/v1/leads/responses/{campaign_id}/"
DISABLE = "/api/v1/leads/disable/{campaign_id}/"
TOKEN = "/oauth/token/"
REVOKE = "/oauth/revoke_token/"


def fetch_openapi(api: SandboxClient) -> Any:
    """Fetch the description that the sandbox serves, without a token."""
    return requests.get(f"{api.handle.url}/openapi.json", timeout=5).json()


def schema_of(document: Any, found: Any) -> dict[str, Any]:
    """Make a schema of the description able to resolve its references."""
    return {**found, "components": document["components"]}


def check_conformance(document: Any, path: str, method: str, answer: requests.Response) -> None:
    """Check that the response's status and body are described for this operation."""
    response = document["paths"][path][method]["responses"][str(answer.status_code)]
    if "content" in response:
        schema = response["content"][answer.headers["Content-Type"]]["schema"]
        jsonschema.Draft202012Validator(schema_of(document, schema)).validate(answer.json())


def test_the_served_document_is_the_static_one_with_the_address_filled_in(
    start_sandbox: StartSandbox,
) -> None:
    """Key by key and in the same order, except for the address of the server."""
    api = start_sandbox()
    static = json.loads(STATIC.read_text())
    static["servers"] = [{"url": api.handle.url}]
    assert json.dumps(fetch_openapi(api)) == json.dumps(static)


def test_the_description_is_valid_openapi(start_sandbox: StartSandbox) -> None:
    """A validator that we did not write finds nothing wrong."""
    validate(fetch_openapi(start_sandbox()))


def test_it_describes_the_documented_api_and_no_admin_endpoints(
    start_sandbox: StartSandbox,
) -> None:
    """Each documented route, with the parameters of the document."""
    document = fetch_openapi(start_sandbox())
    assert set(document["paths"]) == {CREATE, RESPONSES, DISABLE, TOKEN, REVOKE}
    parameters = document["paths"][RESPONSES]["get"]["parameters"]
    assert [p["name"] for p in parameters] == [
        "campaign_id", "lead_id", "processed_after", "processed_before", "page", "page_size"
    ]  # fmt: skip


def test_answers_of_writing_conform(start_sandbox: StartSandbox) -> None:
    """Created, refused, repeated, unknown, too large, without a token."""
    api = start_sandbox(bad_lead="lead", campaigns={"C1": "One"})
    document = fetch_openapi(api)
    good, bad = lead("a"), lead("b", state_code="?")
    for answer in (
        api.create([good, bad]),
        api.create([good]),
        api.create([]),
        api.create([good], campaign="C9"),
        api.create([good], headers={"Authorization": None}),
    ):
        check_conformance(document, CREATE, "post", answer)
    check_conformance(document, DISABLE, "post", api.disable("a"))
    check_conformance(document, DISABLE, "post", api.disable("unknown"))
    api.handle.change_rules(bad_lead="batch", max_body_bytes=10, rate_limit=(1, 60))
    check_conformance(document, CREATE, "post", api.create([bad]))
    check_conformance(document, CREATE, "post", api.create([bad]))
    statuses = [entry.status for entry in api.handle.requests]
    assert statuses == [201, 201, 400, 404, 401, 201, 404, 413, 429]


def test_pages_conform(start_sandbox: StartSandbox) -> None:
    """Unprocessed leads, and drawn outcomes of every kind, in every format of time."""
    api = start_sandbox(pace=1, lead_id_answer="integer")
    document = fetch_openapi(api)
    api.create([lead(n, age=n, note=None) for n in range(200)])
    check_conformance(document, RESPONSES, "get", api.read())
    api.handle.change_rules(clock_offset=100)
    for unit in ("ms", "s", "us", "ns", "iso"):
        api.handle.change_rules(time_format=unit)
        check_conformance(document, RESPONSES, "get", api.read(page_size=200))
    api.handle.change_rules(lead_id_answer="float")
    check_conformance(document, RESPONSES, "get", api.read())
    check_conformance(document, RESPONSES, "get", api.read(page=9))
    check_conformance(document, RESPONSES, "get", api.read(page="x"))


def test_outreach_blocks_conform(start_sandbox: StartSandbox) -> None:
    """The blocks are named by the campaign, so their schemas are matched by prefix here."""
    api = start_sandbox(pace=1)
    document = fetch_openapi(api)
    api.create([lead(n) for n in range(300)])
    api.handle.change_rules(clock_offset=100)
    seen = set()
    for row in api.read(page_size=300).json()["results"]:
        for key in row:
            name = {"gmail": "Gmail", "sms": "Sms", "ivr": "Ivr"}.get(key.partition("_")[0])
            if name:
                schema = document["components"]["schemas"][name]
                wanted = {**schema, "required": list(schema["properties"])}
                full = schema_of(document, wanted)
                jsonschema.Draft202012Validator(full).validate(row[key])
                seen.add(name)
    assert seen == {"Gmail", "Sms", "Ivr"}


def test_token_answers_conform(start_sandbox: StartSandbox) -> None:
    """Granted, refused, revoked."""
    api = start_sandbox()
    document = fetch_openapi(api)
    client = {"client_id": "sandbox-client", "client_secret": "sandbox-secret"}
    user = {"grant_type": "password", "username": "sandbox-user", "password": "sandbox-password"}
    for form in ({**client, **user}, user, {**client, "grant_type": "x"}):
        check_conformance(document, TOKEN, "post", api.call("POST", TOKEN, data=form))
    for form in ({**client, "token": "x"}, client, {"token": "x"}):
        check_conformance(document, REVOKE, "post", api.call("POST", REVOKE, data=form))
    assert [e.status for e in api.handle.requests] == [200, 401, 400, 200, 400, 401]


@pytest.mark.parametrize(("path", "method"), [(CREATE, "post"), (RESPONSES, "get")])
@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 500, 503])
def test_documented_errors_given_by_faults_conform(
    start_sandbox: StartSandbox, path: str, method: str, status: int
) -> None:
    """Also those that only a fault brings."""
    api = start_sandbox()
    document = fetch_openapi(api)
    api.handle.add_fault(kind="status", status=status)
    answer = api.call(method, path.format(campaign_id="C1"), json=[lead("a")])
    assert answer.status_code == status
    check_conformance(document, path, method, answer)
