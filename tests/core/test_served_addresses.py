"""Which hosts and which web pages a server answers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leadloop.core.served_addresses import is_served_host, is_served_origin

_PUBLIC = "https://leads.example.com/page"


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1:8501", "localhost:8501", "LOCALHOST", "[::1]:8501", "10.0.0.7:8501"),
        *("leads.example.com", "Leads.Example.Com.", "leads.example.com:443"),
    ],
)
def test_hosts_that_are_served(host: str) -> None:
    """Every address of the machine, and the name that was configured."""
    assert is_served_host(host, {"leads.example.com"})


@pytest.mark.parametrize(
    "host",
    [
        *(
            "",
            "evil.example",
            "127.0.0.1.evil.example",
            "leads.example.com.evil.example",
            "2130706433",
        ),
        *("localhost@evil.example", "x@localhost", "localhost:x", "[::1", "leads_example_com"),
    ],
)
def test_hosts_that_are_not_served(host: str) -> None:
    """A stranger's name may resolve to this machine: the stranger's pages must get nothing."""
    assert not is_served_host(host, {"leads.example.com"})


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("http://127.0.0.1:8501", "127.0.0.1:8501"),
        ("https://leads.example.com", "leads.example.com"),
        ("https://leads.example.com", "127.0.0.1:8501"),
        ("https://leads.example.com:443", "127.0.0.1:8501"),
    ],
)
def test_pages_that_are_served(origin: str, host: str) -> None:
    """The server's pages, and the same behind a proxy, whichever host the proxy names."""
    assert is_served_origin(origin, host, _PUBLIC)


@pytest.mark.parametrize(
    "origin",
    [
        *(
            "null",
            "",
            "http://evil.example",
            "http://127.0.0.1:3000",
            "file://",
            "ftp://127.0.0.1:8501",
        ),
        *(
            "http://leads.example.com",
            "https://leads.example.com:8443",
            "https://leads.example.com@x",
        ),
    ],
)
def test_pages_that_are_not_served(origin: str) -> None:
    """Neither another machine's page, nor that of another server of this machine."""
    assert not is_served_origin(origin, "127.0.0.1:8501", _PUBLIC)


@given(st.text(), st.text(), st.none() | st.just(_PUBLIC))
def test_any_header_is_read(origin: str, host: str, public_url: str | None) -> None:
    """A hostile header is refused, and ends no request."""
    is_served_host(host, ())
    is_served_origin(origin, host, public_url)
