"""The description of the documented API in OpenAPI's words."""

from typing import Any

from leadloop.sandbox.schemas import Schema, ref, schemas

_JSON = "application/json"
_FORM = "application/x-www-form-urlencoded"

_ERRORS = {
    400: "The payload or a parameter is wrong; the reason is in the body.",
    401: "The bearer token is missing, wrong, expired or revoked.",
    403: "The token may not do this (documented; given here by a fault only).",
    404: "There is no such campaign, page or lead.",
    405: "The path exists, but not with this method.",
    413: "The body is larger than the rules allow.",
    429: "More requests than the business may make; see Retry-After.",
    500: "The vendor failed (documented; given here by a fault only).",
    503: "The vendor is under maintenance (documented; given here by a fault only).",
}
_READ_ERRORS = (400, 401, 403, 404, 405, 429, 500, 503)
_WRITE_ERRORS = (*_READ_ERRORS, 413)


def document(base: str) -> dict[str, Any]:
    """The OpenAPI document for a server at this base URL."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "A stand-in of the vendor's Leads API",
            "version": "1",
            "description": "Built from the vendor's document; what it leaves open is a rule.",
        },
        "servers": [{"url": base}],
        "paths": _paths(),
        "components": {
            "schemas": schemas(),
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
    }


def _paths() -> dict[str, Any]:
    return {
        "/api/v1/leads/create/{campaign_id}/": {"post": _create()},
        "/api/v1/leads/responses/{campaign_id}/": {"get": _responses()},
        "/api/v1/leads/disable/{campaign_id}/": {"post": _disable()},
        "/oauth/token/": {"post": _token()},
        "/oauth/revoke_token/": {"post": _revoke()},
    }


def _create() -> Schema:
    return _operation(
        "createLeads",
        "Create leads",
        [_campaign()],
        {"201": _answer("The leads were created.", "Created"), **_errors(_WRITE_ERRORS)},
        _body(_one_or_more("Lead"), _JSON),
    )


def _responses() -> Schema:
    return _operation(
        "getLeads",
        "Get leads and what became of them",
        [_campaign(), *_filters()],
        {"200": _answer("One page.", "Page"), **_errors(_READ_ERRORS)},
    )


def _disable() -> Schema:
    return _operation(
        "disableLeads",
        "Stop all outreach on leads",
        [_campaign()],
        {"201": _answer("The leads are disabled.", "Disabled"), **_errors(_WRITE_ERRORS)},
        _body(_one_or_more("NamedLead"), _JSON),
    )


def _token() -> Schema:
    grants = {"oneOf": [ref("PasswordGrant"), ref("RefreshGrant")]}
    answers = {"200": _answer("A pair of tokens.", "Tokens"), **_oauth_errors()}
    return _open("getToken", "Get an access token", answers, _body(grants, _FORM))


def _revoke() -> Schema:
    answers = {"200": {"description": "The token is not valid any more."}, **_oauth_errors()}
    return _open("revokeToken", "Revoke a token", answers, _body(ref("Revocation"), _FORM))


def _operation(
    name: str,
    summary: str,
    parameters: list[Schema],
    responses: Schema,
    body: Schema | None = None,
) -> Schema:
    operation: Schema = {
        "operationId": name,
        "summary": summary,
        "parameters": parameters,
        "responses": responses,
        "security": [{"bearer": []}],
    }
    return operation if body is None else {**operation, "requestBody": body}


def _open(name: str, summary: str, responses: Schema, body: Schema) -> Schema:
    return {**_operation(name, summary, [], responses, body), "security": []}


def _campaign() -> Schema:
    return {
        "name": "campaign_id",
        "in": "path",
        "required": True,
        "schema": {"type": "string"},
        "description": "The ID of the campaign",
    }


def _filters() -> list[Schema]:
    whole = {"type": "integer", "minimum": 0}
    number = {"type": "integer", "minimum": 1}
    return [
        _filter("lead_id", {"type": "string"}, "Only the lead of this identifier"),
        _filter("processed_after", whole, "Epoch timestamp (by rule in ms or s)"),
        _filter("processed_before", whole, "Epoch timestamp (by rule in ms or s)"),
        _filter("page", {**number, "default": 1}, "Page number to return"),
        _filter("page_size", {**number, "default": 100}, "Number of leads to return per page"),
    ]


def _filter(name: str, schema: Schema, description: str) -> Schema:
    return {"name": name, "in": "query", "schema": schema, "description": description}


def _one_or_more(name: str) -> Schema:
    return {"oneOf": [{"type": "array", "minItems": 1, "items": ref(name)}, ref(name)]}


def _body(schema: Schema, media_type: str) -> Schema:
    return {"required": True, "content": {media_type: {"schema": schema}}}


def _answer(description: str, name: str) -> Schema:
    return {"description": description, "content": {_JSON: {"schema": ref(name)}}}


def _errors(statuses: tuple[int, ...]) -> Schema:
    answers = {str(status): _answer(_ERRORS[status], "Error") for status in sorted(statuses)}
    seconds = {"schema": {"type": "integer"}, "description": "Seconds until there is room again"}
    answers["429"]["headers"] = {"Retry-After": seconds}
    return answers


def _oauth_errors() -> Schema:
    wrong = _answer("The grant, the token or its form is wrong.", "OAuthError")
    client = _answer("The client is not known.", "OAuthError")
    return {**_errors((405, 429, 500, 503)), "400": wrong, "401": client}
