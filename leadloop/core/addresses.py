"""Which addresses are this machine's own."""

from ipaddress import ip_address


def is_loopback(host: str) -> bool:
    """Whether a host name or address means this very machine: nothing sent to it is on a wire."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
