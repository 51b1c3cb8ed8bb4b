"""The files that messages name, in a checkout; in a wheel: tests/test_wheel.py."""

from leadloop.shipped_files import SHIPPED_FILES


def test_files_of_a_checkout() -> None:
    """A person in a checkout is sent to its own files, not to copies of an installation."""
    assert (SHIPPED_FILES / "pyproject.toml").exists()
    assert (SHIPPED_FILES / "docs" / "delivery.md").exists()
