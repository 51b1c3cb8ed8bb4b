"""Decisions of an HTTP server: for which hosts and for pages of which origin it answers."""

from collections.abc import Collection
from ipaddress import ip_address
from urllib.parse import urlsplit

_DEFAULT_PORTS = {"http": 80, "https": 443}


def is_served_host(host: str, names: Collection[str]) -> bool:
    """Return whether a request's `Host` header names this server.

    An IP address and `localhost` always do. Any other name must be one of `names` (in lower case),
    because a stranger's name may resolve to this server's address (DNS rebinding), and would give
    the stranger's web pages access.
    """
    address = _split_address("//" + host)
    if address is None:
        return False
    name, _ = address
    return name == "localhost" or name in names or _is_ip_address(name)


def is_served_origin(origin: str, host: str, public_url: str | None) -> bool:
    """Return whether a request of a web page comes from a page of this server.

    Args:
        origin: the request's `Origin` header.
        host: the request's `Host` header, which is served.
        public_url: the URL at which a proxy serves this server; None: there is no proxy.
    """
    address = _split_address(origin)
    scheme = urlsplit(origin).scheme if address else ""
    if scheme not in _DEFAULT_PORTS:
        return False
    own = [f"{scheme}://{host}"]
    if public_url is not None and urlsplit(public_url).scheme == scheme:
        own.append(public_url)
    return address in map(_split_address, own)


def _split_address(url: str) -> tuple[str, int | None] | None:
    """Return host and port of a URL that has nothing else before its path; None if it has not."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    name = (parts.hostname or "").rstrip(".")
    if not name or "@" in parts.netloc:
        return None
    return name, port or _DEFAULT_PORTS.get(parts.scheme)


def _is_ip_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
