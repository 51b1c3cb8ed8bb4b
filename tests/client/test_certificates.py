"""The CA bundle that the environment names: read, or reported before a request."""

from pathlib import Path

import pytest

from leadloop.client import certificates
from leadloop.core.errors import RunError
from tests.raw_http_server import create_certificate


@pytest.fixture(autouse=True)
def _no_bundle(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)


def test_an_environment_without_a_bundle_is_a_good_one(tmp_path: Path) -> None:
    """And so is one that names certificates, or a folder of them."""
    certificates.check_ca_bundle("https://vendor.invalid")
    for path in (create_certificate(tmp_path), tmp_path):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("CURL_CA_BUNDLE", str(path))
            certificates.check_ca_bundle("https://vendor.invalid")


@pytest.mark.parametrize(
    ("bundle", "said"),
    [
        ("missing.pem", "names no file"),
        ("no.pem", "names a file without certificates in PEM"),
        ("no.pem/below", "names a file that cannot be read, Not a directory"),
    ],
)
def test_a_bundle_that_is_none_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bundle: str, said: str
) -> None:
    """By the variable that is in force, and only where certificates are looked at."""
    (tmp_path / "no.pem").write_text("nonsense")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "")
    monkeypatch.setenv("CURL_CA_BUNDLE", str(tmp_path / bundle))
    with pytest.raises(RunError, match=f"^CURL_CA_BUNDLE {said} .*unset it"):
        certificates.check_ca_bundle("https://vendor.invalid")
    certificates.check_ca_bundle("http://127.0.0.1")
