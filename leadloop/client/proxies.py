"""The HTTP proxies that the environment names, checked before any request is sent."""

from importlib.util import find_spec
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from leadloop.core.addresses import is_loopback
from leadloop.core.errors import RunError

_SOCKS = ("socks4", "socks4a", "socks5", "socks5h")
#: The modules with which an HTTP client uses SOCKS proxies, and the packages that hold them.
_SOCKS_OF_REQUESTS = ("socks", "PySocks")
_SOCKS_OF_HTTPX = ("socksio", "socksio")


def check_proxy(url: str) -> None:
    """Check that requests to a URL can use the proxy that the environment names for it.

    Raises:
        RunError: the proxy is not a URL, or needs a package that is missing; the message names the
            variable, and not its value, which may hold a password.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    if is_loopback(host) or proxy_bypass(host):
        return
    proxies = getproxies()
    kind = parts.scheme if proxies.get(parts.scheme) else "all"
    _check_kind(kind, proxies.get(kind), *_SOCKS_OF_REQUESTS)


def check_prefect_proxies() -> None:
    """Check every proxy in the environment: Prefect's client prepares them all, used or not.

    Raises:
        RunError: as for `check_proxy`.
    """
    proxies = getproxies()
    if "*" in [host.strip() for host in proxies.get("no", "").split(",")]:
        return
    for kind in ("http", "https", "all"):
        _check_kind(kind, proxies.get(kind), *_SOCKS_OF_HTTPX)


def _check_kind(kind: str, proxy: str | None, module: str, package: str) -> None:
    if not proxy:
        return
    scheme = _read_scheme(proxy)
    if scheme in ("http", "https"):
        return
    if scheme in _SOCKS:
        if find_spec(module) is not None:
            return
        problem = f"names a SOCKS proxy, for which the package {package} is missing: install it"
    else:
        problem = "is not the URL of a proxy: write http://host:port"
    name = f"{kind.upper()}_PROXY"
    raise RunError(f"{name} (or {name.lower()}) {problem}, or unset the variable; nothing was sent")


def _read_scheme(proxy: str) -> str | None:
    """Return the scheme of a proxy's URL; None if it is no URL with a host."""
    try:
        parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        return parts.scheme if parts.hostname and parts.port != 0 else None
    except ValueError:
        return None
