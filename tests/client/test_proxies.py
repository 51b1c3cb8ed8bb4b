"""Proxies of the environment: checked before anything is sent, and named by their variable."""

import pytest

from leadloop.client.proxies import check_prefect_proxies, check_proxy
from leadloop.core.errors import RunError

_API = "https://api.example.com"


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("ALL_PROXY", "socks5://ann:s3cret@127.0.0.1:1080", "SOCKS proxy.*PySocks"),
        ("all_proxy", "socks5h://127.0.0.1:1080", "SOCKS proxy"),
        ("HTTPS_PROXY", "socks4://127.0.0.1:1080", "SOCKS proxy"),
        ("HTTPS_PROXY", "ftp://ann:s3cret@127.0.0.1", "is not the URL of a proxy"),
        ("HTTPS_PROXY", "http://127.0.0.1:s3cret", "is not the URL of a proxy"),
        ("HTTPS_PROXY", "http://", "is not the URL of a proxy"),
    ],
)
def test_a_proxy_that_cannot_be_used(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, said: str
) -> None:
    """One line names the variable, and nothing secret."""
    monkeypatch.setenv(variable, value)
    with pytest.raises(RunError, match=said) as caught:
        check_proxy(_API)
    assert variable in str(caught.value)
    assert "s3cret" not in str(caught.value)
    with pytest.raises(RunError, match=variable):
        check_prefect_proxies()


@pytest.mark.parametrize("value", ["http://proxy:3128", "https://ann:pw@proxy", "proxy:3128"])
def test_a_proxy_that_can_be_used(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """With and without a scheme, as requests and Prefect's client read it."""
    monkeypatch.setenv("HTTPS_PROXY", value)
    check_proxy(_API)
    check_prefect_proxies()


def test_a_proxy_that_is_not_used_does_no_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    """For a host that needs none, or for another kind of URL; Prefect's client reads them all."""
    monkeypatch.setenv("HTTP_PROXY", "socks5://127.0.0.1:1080")
    check_proxy(_API)
    with pytest.raises(RunError, match="HTTP_PROXY"):
        check_prefect_proxies()
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:1080")
    check_proxy("http://127.0.0.1:8080")
    monkeypatch.setenv("NO_PROXY", "api.example.com")
    check_proxy(_API)
    monkeypatch.setenv("NO_PROXY", "*")
    check_prefect_proxies()
