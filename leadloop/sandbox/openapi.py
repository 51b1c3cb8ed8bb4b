"""The description of the documented API in OpenAPI's words."""


def document(base: str) -> dict[str, object]:
    """The OpenAPI document for a server at this base URL."""
    return {"base": base}
