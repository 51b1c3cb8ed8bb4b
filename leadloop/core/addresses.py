"""Loopback addresses."""

from ipaddress import ip_address


def is_loopback(host: str) -> bool:
    """Return whether a host name or address is loopback: traffic never leaves this machine."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
