"""The reference says what the program is: a page that differs, or a gap in it, fails here."""

import re
from pathlib import Path
from textwrap import dedent
from typing import Annotated
from urllib.parse import unquote

import pytest
import typer
import yaml
from pydantic import SecretStr
from sqlalchemy import Connection, text

from docs import generate
from leadloop.cli.integration import Integration, read_integration
from leadloop.core.accounts import ACCOUNT_PREFIX, parse_variable
from leadloop.core.verdicts import Verdict
from leadloop.settings import Settings

ROOT = Path(__file__).parents[2]
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_CODE = re.compile(r"```.*?```", re.DOTALL)
#: Where documents name verdicts, each in code marks.
_VERDICT_LISTS = {
    "docs/delivery.md": r"maps to (.*?) for a create",
    "docs/explanation/glossary.md": r"\*\*verdict\*\* \|(.*?)\|",
    "docs/reference/verdicts.md": r"Any other 4xx is (.*?);",
}


@pytest.fixture
def pages(database_url: str) -> dict[str, str]:
    """What the code says now."""
    return generate.render_pages(database_url)


def test_each_page_is_what_the_code_says_now(pages: dict[str, str]) -> None:
    """Nobody reads of an option, a setting or a column that is not there, or is different."""
    stale = [
        name
        for name, page in pages.items()
        if not (file := generate.REFERENCE / name).exists()
        or file.read_text(encoding="utf-8") != page
    ]
    assert stale == [], "run `make docs`"


def test_no_page_is_left_over(pages: dict[str, str]) -> None:
    """A page that nothing makes any more is not kept."""
    assert {file.name for file in generate.REFERENCE.iterdir()} == set(pages)


def test_sources_of_dbt_are_what_the_database_has_now(database_url: str) -> None:
    """No dbt project reads a column that is not there, or of another description."""
    stored = read_integration(Integration.DBT)
    assert stored == generate.render_dbt_sources(database_url), "run `make docs`"
    # dbt would evaluate it in a description.
    assert not re.search(r"\{[{%#]", stored)


def test_sources_of_dbt_can_be_read(connection: Connection) -> None:
    """Each declared table has its columns; all views are declared, and the tables that stay."""
    declared: dict[str, set[str]] = {}
    for source in yaml.safe_load(read_integration(Integration.DBT))["sources"]:
        for table in source["tables"]:
            columns = ", ".join(f'"{column["name"]}"' for column in table["columns"])
            connection.execute(text(f"SELECT {columns} FROM {source['name']}.{table['name']}"))
            declared.setdefault(source["name"], set()).add(table["name"])
    views = connection.scalars(
        text("SELECT viewname FROM pg_views WHERE schemaname = 'leadloop_monitor'")
    )
    assert declared == {"leadloop": set(generate.DBT_TABLES), "leadloop_monitor": set(views)}


def test_every_command_is_in_the_reference(pages: dict[str, str]) -> None:
    """Whatever `leadloop --help` lists has a section with its options."""
    for name in typer.main.get_command(generate.app).commands:  # type: ignore[attr-defined]
        assert f"## leadloop {name}\n" in pages["command-line.md"]


def test_every_setting_is_in_the_reference(pages: dict[str, str]) -> None:
    """Whatever the program reads from the environment has a row."""
    for name in Settings.model_fields:
        assert f"| `LEADLOOP_{name.upper()}` |" in pages["settings.md"]


@pytest.mark.parametrize(("document", "place"), _VERDICT_LISTS.items())
def test_documents_name_verdicts_that_exist(document: str, place: str) -> None:
    """A reader who looks up a verdict in the code finds it."""
    match = re.search(place, (ROOT / document).read_text(encoding="utf-8"), re.DOTALL)
    assert match, f"{document} no longer holds {place!r}"
    named = {" ".join(name.split()) for name in re.findall(r"`([^`]+)`", match[1])}
    assert named, document
    assert named <= set(Verdict)


def test_a_setting_without_a_description_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A setting that nobody has described does not get into a release."""

    class More(Settings):
        mystery: SecretStr | None = None

    monkeypatch.setattr(generate, "Settings", More)
    with pytest.raises(LookupError, match="LEADLOOP_MYSTERY"):
        generate.render_settings()


def test_a_command_without_a_description_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that nobody has described does not get into a release."""
    app = typer.Typer(help="An app.")

    @app.command()
    def known() -> None:
        """Do something."""

    @app.command()
    def mystery() -> None: ...

    monkeypatch.setattr(generate, "app", app)
    with pytest.raises(LookupError, match="mystery"):
        generate.render_command_line()


def test_an_option_without_a_description_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """An option that nobody has described does not get into a release."""
    app = typer.Typer(help="An app.")

    @app.command()
    def known(mystery: Annotated[int, typer.Option()] = 1) -> None:
        """Do something."""

    @app.command()
    def other() -> None:
        """Do something else."""

    monkeypatch.setattr(generate, "app", app)
    with pytest.raises(LookupError, match="--mystery of the command known"):
        generate.render_command_line()


def _documents() -> list[Path]:
    return [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]


def _blocks(language: str) -> list[str]:
    fenced = re.compile(rf"^ *```{language}\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
    prose = (document.read_text(encoding="utf-8") for document in _documents())
    return [dedent(block) for page in prose for block in fenced.findall(page)]


@pytest.mark.parametrize("document", _documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    """A link to a file of the repository opens, and its anchor is a heading there."""
    prose = _CODE.sub("", document.read_text(encoding="utf-8"))
    for link in _LINK.findall(prose):
        if "://" in link:
            continue
        path, _, anchor = unquote(link).partition("#")
        target = (document.parent / path).resolve() if path else document
        assert target.exists(), link
        assert not anchor or anchor in find_anchors(target), link


def find_anchors(document: Path) -> set[str]:
    """Return the anchors that GitHub gives to headings."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_documented_commands_and_options_exist(pages: dict[str, str]) -> None:
    """Whoever copies a `leadloop ...` line from the documents gets no usage error."""
    reference = pages["command-line.md"]
    sections = dict(re.findall(r"^## leadloop (\S+)$(.*?)(?=^## |\Z)", reference, re.M | re.S))
    for block in _blocks("sh"):
        for line in re.findall(r"^(?:\w+=\S+ )*leadloop (.+)$", block, re.M):
            command, *rest = line.split("#")[0].split()
            assert command in sections, line
            for option in (word for word in rest if word.startswith("--")):
                assert f"`{option}`" in sections[command], line


def test_documented_settings_exist() -> None:
    """Whoever sets a variable that a document names, sets something."""
    known = {f"LEADLOOP_{name.upper()}" for name in Settings.model_fields}
    named = {
        name
        for document in _documents()
        for name in re.findall(r"LEADLOOP_[A-Z_]+", document.read_text(encoding="utf-8"))
    }
    accounts = {name for name in named if parse_variable(name) is not None}
    assert named - accounts - {ACCOUNT_PREFIX} <= known


@pytest.mark.parametrize("block", _blocks("sql"))
def test_documented_sql_runs(connection: Connection, block: str) -> None:
    """Whoever copies SQL from the documents gets no error."""
    with connection.begin_nested() as savepoint:
        connection.execute(text("CREATE ROLE crm; CREATE ROLE leadloop_run"))
        connection.exec_driver_sql(block)
        savepoint.rollback()
