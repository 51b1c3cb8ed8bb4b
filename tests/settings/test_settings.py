import re
from pathlib import Path

import pytest

from leadloop.core.errors import UsageError
from leadloop.settings import Settings, SettingSource

_TOKEN = "LEADLOOP_API_TOKEN=t\n"
_ADDRESS = "LEADLOOP_API_URL=https://example.com\n"
_OAUTH = ("CLIENT_ID", "CLIENT_SECRET", "USERNAME", "PASSWORD")


@pytest.fixture(autouse=True)
def _nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No .env of a checkout."""
    monkeypatch.chdir(tmp_path)


def test_the_defaults_are_those_of_the_contract() -> None:
    """People rely on them."""
    settings = Settings.load()
    assert settings.api_url == "https://app.squadrun.co"
    assert settings.parse_rate() == (100, 60.0)
    assert (settings.batch_size, settings.page_size) == (100, 100)
    assert (settings.concurrency, settings.read_concurrency, settings.max_concurrency) == (
        *(None, 4, 12),
    )
    assert settings.parse_timeouts() == (5.0, 60.0)
    assert (settings.lookback, settings.settle, settings.window) == (900, 60, 3600)
    assert (settings.epoch_unit, settings.default_region) == ("ms", "US")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("API_URL", "http://example.com/s3cret"),
        ("API_URL", "https://ann:s3cret@example.com"),
        ("API_URL", "https://:s3cret@example.com"),
        ("API_URL", "s3cret"),
        ("API_URL", "ftp://s3cret"),
        ("API_TOKEN", "s3cret\n"),
        ("API_TOKEN", "s3cret\N{HORIZONTAL ELLIPSIS}"),
        ("API_TOKEN", "Bearer s3cret"),
        ("RATE_LIMIT", "100"),
        ("RATE_LIMIT", "0/60"),
        ("RATE_LIMIT", "100/0"),
        ("RATE_LIMIT", "100/0.0"),
        ("RATE_LIMIT", "1/99999999999999"),
        ("RATE_LIMIT", "1/86401"),
        ("RATE_LIMIT", "9999999/1"),
        ("API_URL", "https://example.com:99999"),
        ("API_URL", "https://example.com:s3cret"),
        ("API_URL", "https://example.com:"),
        ("API_URL", "http://[::s3cret"),
        ("PAGE_URL", "https://ann:s3cret@example.com"),
        ("PAGE_URL", "http://[::s3cret"),
        ("PAGE_URL", "/s3cret"),
        ("BATCH_SIZE", "10001"),
        ("PAGE_SIZE", "99999999999"),
        ("SETTLE", "86401"),
        ("LOOKBACK", "99999999999"),
        ("WINDOW", "99999999999"),
        ("TIMEOUT", "0,60"),
        ("TIMEOUT", "5,3601"),
        ("TIMEOUT", "1e9,1"),
        ("DEFAULT_REGION", "XX"),
        ("BATCH_SIZE", "0"),
        ("BATCH_SIZE", "many"),
        ("CONCURRENCY", "0"),
        ("TIMEOUT", "5"),
        ("LOOKBACK", "-1"),
        ("WINDOW", "0"),
        ("EPOCH_UNIT", "us"),
        ("DEFAULT_REGION", "usa"),
    ],
)
def test_a_wrong_setting_is_named_in_one_line(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    """And is not repeated, for it may be a secret."""
    monkeypatch.setenv(f"LEADLOOP_{name}", value)
    with pytest.raises(UsageError, match=f"^LEADLOOP_{name} is wrong: ") as caught:
        Settings.load()
    assert "\n" not in str(caught.value)
    assert "s3cret" not in str(caught.value)
    assert "Input should" not in str(caught.value)
    assert (
        "write" in str(caught.value) or "use" in str(caught.value) or "holds" in str(caught.value)
    )


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("BATCH_SIZE", "many", "write a whole number from 1 to 10000"),
        ("LOOKBACK", "-1", "write a whole number from 0 to 2592000"),
        ("MAX_LEAD_AGE", "0", "write a whole number from 1 to 31536000"),
        ("MAX_LEAD_AGE", "soon", "write a whole number from 1 to 31536000"),
        ("EPOCH_UNIT", "us", "write ms or s"),
    ],
)
def test_a_wrong_value_is_told_what_to_write(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str
) -> None:
    """In our words, not in those of a library."""
    monkeypatch.setenv(f"LEADLOOP_{name}", value)
    with pytest.raises(UsageError) as caught:
        Settings.load()
    assert str(caught.value) == f"LEADLOOP_{name} is wrong: {said}"


def test_a_dotenv_in_another_encoding_is_told(tmp_path: Path) -> None:
    """Editors on Windows write such files."""
    (tmp_path / ".env").write_text("LEADLOOP_API_TOKEN=s3cret", encoding="utf-16")
    with pytest.raises(UsageError, match=r"^\.env is not UTF-8 text"):
        Settings.load()


def test_a_dotenv_that_others_may_write(tmp_path: Path) -> None:
    """A run of a deployment, too, takes no address or token from it."""
    (tmp_path / ".env").write_text("LEADLOOP_API_URL=https://elsewhere.example")
    (tmp_path / ".env").chmod(0o666)
    with pytest.raises(UsageError, match=r"\.env may be written by everybody"):
        Settings.load()


def test_a_misspelt_setting_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the environment and in the file; an empty variable is one that is not set."""
    monkeypatch.setenv("LEADLOOP_BATCHSIZE", "5")
    monkeypatch.setenv("LEADLOOP_PAGE_SIZE", "5")
    monkeypatch.setenv("LEADLOOP_DB_URL", "")
    (tmp_path / ".env").write_text("LEADLOOP_TOKEN=s3cret\nleadloop_settle=5\n")
    with pytest.raises(UsageError) as caught:
        Settings.load()
    assert str(caught.value) == (
        "LEADLOOP_BATCHSIZE is not a setting, did you mean LEADLOOP_BATCH_SIZE?"
        " LEADLOOP_TOKEN is not a setting, did you mean LEADLOOP_API_TOKEN? Rename or unset it"
    )


@pytest.mark.parametrize("service", ["", "PAGE_", "DATABASE_", "API_", "SOURCE_", "PAGE_URL_"])
def test_variables_of_kubernetes_are_no_settings(
    monkeypatch: pytest.MonkeyPatch, service: str
) -> None:
    """Kubernetes adds these for each service, here for `leadloop`, `leadloop-page` and so on."""
    values = {
        "SERVICE_HOST": "10.0.0.1",
        "SERVICE_PORT": "80",
        "SERVICE_PORT_HTTP": "80",
        "PORT": "tcp://10.0.0.1:80",
        "PORT_80_TCP": "tcp://10.0.0.1:80",
        "PORT_80_TCP_PROTO": "tcp",
        "PORT_80_TCP_PORT": "80",
        "PORT_80_TCP_ADDR": "10.0.0.1",
    }
    for name, value in values.items():
        monkeypatch.setenv(f"LEADLOOP_{service}{name}", value)
    # By its name alone it would be taken for PAGE_URL.
    monkeypatch.setenv("LEADLOOP_PAGE_URI", "tcp://10.0.0.1:80")
    Settings.load()
    assert Settings.take_warnings() == []


def test_a_misspelt_setting_that_is_set_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever source sets it; once in a process, without the value."""
    (tmp_path / ".env").write_text("LEADLOOP_DB_URL=s3cret\n")
    block = _block("leadloop-credentials", database_url="postgresql://h/d")
    with pytest.raises(UsageError, match=r"LEADLOOP_DB_URL .* mean LEADLOOP_DATABASE_URL\?"):
        Settings.load()
    Settings.load(block)
    assert Settings.take_warnings(block) == [
        "LEADLOOP_DB_URL is not a setting and has no effect; LEADLOOP_DATABASE_URL is set and used"
    ]
    monkeypatch.setenv("LEADLOOP_DATABASE_URL", "postgresql://h/d")
    Settings.load()
    assert Settings.take_warnings() == []


def test_a_misspelt_setting_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is named with the setting that is meant, wherever it stands; its value is not shown."""
    monkeypatch.setenv("LEADLOOP_DATABSE_URL", "s3cret")
    line = "LEADLOOP_DATABSE_URL is not a setting, did you mean LEADLOOP_DATABASE_URL?"
    with pytest.raises(UsageError, match=re.escape(line)) as caught:
        Settings.load()
    assert "s3cret" not in str(caught.value)
    monkeypatch.delenv("LEADLOOP_DATABSE_URL")
    (tmp_path / ".env").write_text("LEADLOOP_DATABSE_URL=s3cret\n")
    with pytest.raises(UsageError, match=re.escape(line)):
        Settings.load()


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:8080", "http://localhost:1/", "http://[::1]:5", "https://example.com/x/"],
)
def test_plain_http_goes_to_loopback_alone(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """A slash at the end does not matter."""
    monkeypatch.setenv("LEADLOOP_API_URL", url)
    assert Settings.load().api_url == url.rstrip("/")


def test_a_login_is_a_token_or_all_four_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is missing is named."""
    with pytest.raises(UsageError, match=r"LEADLOOP_API_TOKEN, or LEADLOOP_CLIENT_ID"):
        Settings.load().require_login()
    for name in ("CLIENT_ID", "CLIENT_SECRET", "USERNAME"):
        monkeypatch.setenv(f"LEADLOOP_{name}", "x")
    with pytest.raises(UsageError, match=r"incomplete: set LEADLOOP_PASSWORD$"):
        Settings.load().require_login()
    monkeypatch.setenv("LEADLOOP_PASSWORD", "x")
    Settings.load().require_login()


def test_a_whole_login_leaves_no_room_for_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The environment's, of either kind, wins over one of the other kind in `.env`."""
    (tmp_path / ".env").write_text(_TOKEN)
    for name in _OAUTH:
        assert Settings.load().api_token is not None
        monkeypatch.setenv(f"LEADLOOP_{name}", "x")
    assert Settings.load().api_token is None
    assert "api_token" not in Settings.describe_sources()
    for name in _OAUTH:
        monkeypatch.delenv(f"LEADLOOP_{name}")
    (tmp_path / ".env").write_text("".join(f"LEADLOOP_{name}=x\n" for name in _OAUTH))
    monkeypatch.setenv("LEADLOOP_API_TOKEN", "t")
    assert Settings.load().client_id is None


def _block(kind: str, **values: str) -> SettingSource:
    return SettingSource(name=f"block {kind}/team", origin="blocks team", values=values)


def test_a_token_goes_only_to_the_address_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In `.env` as in the environment: one line names both places, and neither value."""
    (tmp_path / ".env").write_text(_TOKEN)
    assert Settings.load().api_url == "https://app.squadrun.co"
    monkeypatch.setenv("LEADLOOP_API_URL", "https://s3cret.example.com")
    line = "^the login comes from .env, but api_url from the environment: set both in one of them"
    with pytest.raises(UsageError, match=line) as caught:
        Settings.load()
    assert "s3cret" not in str(caught.value)
    (tmp_path / ".env").write_text(_TOKEN + _ADDRESS)
    with pytest.raises(UsageError, match=line):
        Settings.load()
    monkeypatch.setenv("LEADLOOP_API_TOKEN", "t")
    assert Settings.load().api_url == "https://s3cret.example.com"


def test_an_address_alone_takes_no_login_of_another_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """A block that only names an address gets neither the token nor the OAuth login of a worker."""
    thief = _block("leadloop-settings", api_url="https://example.com")
    assert Settings.load(thief).api_url == "https://example.com"
    line = "^the login comes from the environment, but api_url from block leadloop-"
    monkeypatch.setenv("LEADLOOP_API_TOKEN", "t")
    with pytest.raises(UsageError, match=line):
        Settings.load(thief)
    monkeypatch.delenv("LEADLOOP_API_TOKEN")
    for name in _OAUTH:
        monkeypatch.setenv(f"LEADLOOP_{name}", "x")
    with pytest.raises(UsageError, match=line):
        Settings.load(thief)
    # One part of a login in the block does not make the worker's token its own.
    monkeypatch.setenv("LEADLOOP_API_TOKEN", "t")
    with pytest.raises(UsageError, match=line):
        Settings.load(_block("leadloop-credentials", client_id="c", api_url="https://example.com"))


def test_a_login_takes_no_address_of_another_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """A block's token does not follow the address of a worker's environment."""
    monkeypatch.setenv("LEADLOOP_API_URL", "https://example.com")
    line = "^the login comes from block leadloop-credentials/team, but api_url from the environment"
    with pytest.raises(UsageError, match=line):
        Settings.load(_block("leadloop-credentials", api_token="t"))


def test_the_blocks_of_one_name_are_one_source(monkeypatch: pytest.MonkeyPatch) -> None:
    """The login in one and the address in the other belong together, whatever a worker has."""
    monkeypatch.setenv("LEADLOOP_API_URL", "https://elsewhere.example.com")
    monkeypatch.setenv("LEADLOOP_API_TOKEN", "elsewhere")
    settings = Settings.load(
        _block("leadloop-credentials", api_token="t"),
        _block("leadloop-settings", api_url="https://example.com"),
    )
    assert settings.api_url == "https://example.com"
    assert settings.api_token is not None
    assert settings.api_token.get_secret_value() == "t"


def test_a_login_is_not_put_together_from_two_places(monkeypatch: pytest.MonkeyPatch) -> None:
    """One line names both."""
    monkeypatch.setenv("LEADLOOP_PASSWORD", "x")
    three = dict.fromkeys(("client_id", "client_secret", "username"), "x")
    line = "split between block leadloop-credentials/team and the environment:"
    with pytest.raises(UsageError, match=line):
        Settings.load(_block("leadloop-credentials", **three))
    Settings.load(_block("leadloop-credentials", **three, password="x"))


@pytest.mark.parametrize(
    ("value", "line"),
    [("", "LEADLOOP_DATABASE_URL is not set"), ("embedded", "is for local commands")],
)
def test_a_deployment_needs_a_database(
    monkeypatch: pytest.MonkeyPatch, value: str, line: str
) -> None:
    """The embedded one of a temporary directory is none."""
    monkeypatch.setenv("LEADLOOP_DATABASE_URL", value)
    with pytest.raises(UsageError, match=line):
        Settings.load().require_database_url()


def test_secrets_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings may land in a traceback."""
    for name in ("API_TOKEN", "CLIENT_SECRET", "PASSWORD", "DATABASE_URL"):
        monkeypatch.setenv(f"LEADLOOP_{name}", "s3cret")
    assert "s3cret" not in repr(Settings.load())


def test_an_empty_variable_is_one_that_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compose files set every variable."""
    monkeypatch.setenv("LEADLOOP_BATCH_SIZE", "")
    monkeypatch.setenv("LEADLOOP_API_TOKEN", "")
    assert Settings.load().batch_size == 100
    assert Settings.load().api_token is None


_EMEA = "LEADLOOP_ACCOUNT_EMEA_"


def _set_account(monkeypatch: pytest.MonkeyPatch, **values: str) -> None:
    for name, value in values.items():
        monkeypatch.setenv(f"{_EMEA}{name.upper()}", value)


def test_an_account_inherits_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the address, the login nor the limit of the account `default`."""
    monkeypatch.setenv("LEADLOOP_API_URL", "https://default.example.com")
    monkeypatch.setenv("LEADLOOP_API_TOKEN", "t")
    monkeypatch.setenv("LEADLOOP_RATE_LIMIT", "7/60")
    emea = Settings.load().get_account("emea")
    assert (emea.api_url, emea.api_token, emea.is_complete) == (None, None, False)
    _set_account(monkeypatch, api_token="e", api_url="https://emea.example.com/")
    settings = Settings.load()
    emea = settings.get_account("emea")
    assert emea.api_token is not None
    assert emea.api_token.get_secret_value() == "e"
    assert (emea.api_url, emea.parse_rate()) == ("https://emea.example.com", (100, 60.0))
    assert emea.address == "https://emea.example.com (account emea)"
    assert settings.get_account("default").address == "https://default.example.com"
    assert settings.parse_rate() == settings.get_account("default").parse_rate() == (7, 60.0)
    assert [each.name for each in settings.list_complete_accounts()] == ["default", "emea"]


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        ({}, "_API_URL and {}_API_TOKEN (or the four of an OAuth login), or create its block"),
        ({"rate_limit": "9/60"}, "_API_URL and {}_API_TOKEN (or the four of an OAuth login)"),
        ({"api_url": "https://e.example"}, "_API_TOKEN (or the four of an OAuth login)"),
        ({"api_token": "e"}, "_API_URL"),
        ({"client_id": "c", "username": "u"}, "_API_URL, {}_CLIENT_SECRET, {}_PASSWORD"),
    ],
)
def test_what_an_account_lacks_is_named(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str], missing: str
) -> None:
    """An account that is not complete is no fault of the settings: it is left alone."""
    _set_account(monkeypatch, **given)
    account = Settings.load().get_account("emea")
    wanted = f"set {_EMEA[:-1]}{missing}".replace("{}", _EMEA[:-1])
    assert account.describe_missing().startswith(wanted)
    with pytest.raises(UsageError, match=re.escape(f"account emea has no login here: {wanted}")):
        account.require_login()


def test_a_login_of_any_account_is_enough_to_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker may serve one account alone; without any, the plain login is missing."""
    _set_account(monkeypatch, api_url="https://e.example")
    with pytest.raises(UsageError, match=r"^no login for the API: set LEADLOOP_API_TOKEN, or"):
        Settings.load().require_login()
    _set_account(monkeypatch, api_token="e")
    Settings.load().require_login()


@pytest.mark.parametrize(
    ("name", "value", "advice"),
    [
        ("api_url", "http://s3cret.example", "plain http would send the token in the clear"),
        ("api_token", "s3cret token", "it holds a blank"),
        ("rate_limit", "s3cret", "write requests/seconds"),
    ],
)
def test_a_wrong_value_of_an_account_stops_that_account_alone(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, advice: str
) -> None:
    """It is named by its variable or its block, and without the value."""
    monkeypatch.setenv("LEADLOOP_API_TOKEN", "t")
    _set_account(monkeypatch, **{"api_url": "https://e.example", "api_token": "e", name: value})
    settings = Settings.load()
    assert [each.name for each in settings.list_complete_accounts()] == ["default"]
    cannot = "^account emea cannot be used here: "
    fault = f"{cannot}{_EMEA}{name.upper()} is wrong: {advice}"
    with pytest.raises(UsageError, match=fault) as caught:
        settings.get_account("emea").require_login()
    assert "s3cret" not in str(caught.value)
    assert settings.list_faults() == [str(caught.value)]
    source = "block leadloop-account/team--emea"
    block = SettingSource(name=source, origin=source, values={name: value}, account="emea")
    with pytest.raises(UsageError, match=f"{cannot}{name} of {source} is wrong: {advice}"):
        Settings.load(block).get_account("emea").require_login()


@pytest.mark.parametrize(
    ("name", "is_used"),
    [
        ("database_url", False),
        ("api_url", False),
        ("api_token", False),
        ("password", False),
        ("rate_limit", True),
        ("batch_size", True),
    ],
)
def test_a_run_of_another_environment_uses_no_account_of_the_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, is_used: bool
) -> None:
    """Else a staging run could send with a production login; an account's block is used."""
    oauth = {"client_id": "c", "client_secret": "s", "username": "u", "password": "p"}
    given = {"rate_limit": "9/60", "batch_size": 9, "api_token": "t"}
    values = oauth if name in oauth else {name: given.get(name, "https://s.example")}
    _set_account(monkeypatch, api_url="https://e.example", api_token="e")
    (tmp_path / ".env").write_text(
        "LEADLOOP_ACCOUNT_APAC_API_URL=https://a.example\nLEADLOOP_ACCOUNT_APAC_API_TOKEN=a\n"
    )
    staging = SettingSource(name="block leadloop-credentials/staging", origin="b", values=values)
    settings = Settings.load(staging)
    for account in ("emea", "apac"):
        assert settings.get_account(account).is_complete == is_used
        if not is_used:
            line = f"account {account} cannot be used here: its variables are left out, because"
            with pytest.raises(UsageError, match=f"^{line} {staging.name} sets another database"):
                settings.get_account(account).require_login()
    own = {"api_url": "https://staging.example", "api_token": "s"}
    block = SettingSource(name="block b", origin="b", values=own, account="emea")
    assert Settings.load(staging, block).get_account("emea").require_api_url() == own["api_url"]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("ACCOUNT_EMEA_API_TOKN", "ACCOUNT_EMEA_API_TOKEN"),
        ("ACCOUNT_EMEA_RATELIMIT", "ACCOUNT_EMEA_RATE_LIMIT"),
        ("ACCOUNT_EMEA_BATCH_SIZE", "BATCH_SIZE"),
        ("ACCOUNT_DEFAULT_API_TOKEN", "API_TOKEN"),
    ],
)
def test_a_misspelt_variable_of_an_account_is_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, meant: str
) -> None:
    """What is set otherwise has no effect, and is warned of."""
    monkeypatch.setenv(f"LEADLOOP_{name}", "100/60")
    line = f"^LEADLOOP_{name} is not a setting, did you mean LEADLOOP_{meant}"
    with pytest.raises(UsageError, match=line):
        Settings.load()
    monkeypatch.setenv(f"LEADLOOP_{meant}", "5/60" if "RATE" in name else "5")
    Settings.load()
    (warning,) = Settings.take_warnings()
    assert f"LEADLOOP_{name} is not a setting and has no effect" in warning


def test_the_first_place_of_an_account_is_used_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No login is sent to the address of another place: what the first one lacks, is missing."""
    (tmp_path / ".env").write_text(f"{_EMEA}API_URL=https://file.example\n{_EMEA}API_TOKEN=f\n")
    assert Settings.load().get_account("emea").is_complete
    assert Settings.describe_sources()["account emea"] == ".env"
    _set_account(monkeypatch, api_url="https://environment.example")
    emea = Settings.load().get_account("emea")
    assert (emea.api_url, emea.api_token) == ("https://environment.example", None)
    block = SettingSource(name="block b", origin="b", values={"api_token": "b"}, account="emea")
    emea = Settings.load(block).get_account("emea")
    assert (emea.api_url, emea.is_complete) == (None, False)
    assert Settings.describe_sources(block)["account emea"] == "block b"


def test_two_accounts_with_one_login_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The vendor counts their requests together; the same token elsewhere is another login."""
    monkeypatch.setenv("LEADLOOP_API_URL", "https://one.example")
    monkeypatch.setenv("LEADLOOP_API_TOKEN", "s3cret")
    _set_account(monkeypatch, api_url="https://two.example", api_token="s3cret")
    Settings.load()
    _set_account(monkeypatch, api_url="https://one.example")
    line = "^the accounts default and emea have the same login at the same address"
    with pytest.raises(UsageError, match=line) as caught:
        Settings.load()
    assert "s3cret" not in str(caught.value)
    _set_account(monkeypatch, api_token="another")
    Settings.load()


def test_changed_accounts_are_changed_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """By this a live run notices a new login."""
    before = Settings.load()
    assert before == Settings.load()
    _set_account(monkeypatch, api_token="e")
    assert before != Settings.load()


def test_no_secret_of_an_account_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """However it is printed."""
    _set_account(monkeypatch, api_token="s3cret", client_secret="s3cret", password="s3cret")
    settings = Settings.load()
    assert "s3cret" not in f"{settings!r} {settings.list_accounts()!r} {settings.model_dump()!r}"
