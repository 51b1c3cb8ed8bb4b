"""Accounts: the names under which campaigns refer to logins at the vendor, and their variables."""

import re

from leadloop.core.misspellings import find_intended_setting

#: The account of campaigns whose row names no other one. Its variables name no account.
DEFAULT_ACCOUNT = "default"
#: The prefix of the settings' variables, and of those of an account other than `default`.
PREFIX = "LEADLOOP_"
ACCOUNT_PREFIX = f"{PREFIX}ACCOUNT_"
#: The settings of an account, which form one unit.
ACCOUNT_SETTINGS = (
    "api_url",
    "api_token",
    "client_id",
    "client_secret",
    "username",
    "password",
    "rate_limit",
)
#: Separates the name of a run's block from that of an account; no account's name contains it.
BLOCK_SEPARATOR = "--"
#: The form of an account's name: that of a block in Prefect, without two dashes in a row.
NAME_FORM = "lower-case letters and digits, with single dashes between them"
_NAME = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
_MAX_NAME_LENGTH = 40
_VARIABLE = re.compile(rf"{ACCOUNT_PREFIX}(.+)_({'|'.join(ACCOUNT_SETTINGS)})".upper())


def is_account_name(text: str) -> bool:
    """Return whether a text can be the name of an account."""
    return len(text) <= _MAX_NAME_LENGTH and _NAME.fullmatch(text) is not None


def build_variable(account: str, setting: str) -> str:
    """Return the variable of an account's setting, such as `LEADLOOP_ACCOUNT_EMEA_API_URL`."""
    return f"{build_prefix(account)}{setting.upper()}"


def build_prefix(account: str) -> str:
    """Return what the variables of an account begin with."""
    if account == DEFAULT_ACCOUNT:
        return PREFIX
    return f"{ACCOUNT_PREFIX}{account.replace('-', '_').upper()}_"


def parse_variable(variable: str) -> tuple[str, str] | None:
    """Return the account and the setting that a variable in capitals sets; None if it sets none.

    The account `default` has no such variables.
    """
    form = _VARIABLE.fullmatch(variable)
    if form is None:
        return None
    account = form[1].lower().replace("_", "-")
    if account == DEFAULT_ACCOUNT or not is_account_name(account):
        return None
    return account, form[2].lower()


def find_intended_variable(variable: str) -> str | None:
    """Return the account's variable that a misspelt one probably means, else None.

    Args:
        variable: in capitals; begins with ACCOUNT_PREFIX, and sets nothing.
    """
    words = variable.removeprefix(ACCOUNT_PREFIX).split("_")
    settings = [setting.upper() for setting in ACCOUNT_SETTINGS]
    # The longest rest first: a word of a setting is no part of the account's name.
    for place in range(1, len(words)):
        rest = "_".join(words[place:])
        setting = rest if rest in settings else find_intended_setting(rest, settings)
        if setting in settings:
            account = "-".join(words[:place]).lower()
            return build_variable(account, setting) if is_account_name(account) else None
    return None
