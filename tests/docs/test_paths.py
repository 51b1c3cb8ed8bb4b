"""Files that documents and messages name exist, under the name that is given."""

import re
from pathlib import Path

import pytest

from leadloop import __version__
from tests.docs.test_reference import find_anchors

ROOT = Path(__file__).parents[2]
_DOCUMENTS = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
# A path in code marks, such as `tasks/push.py` or `db/schema/`. A changelog may name what is gone.
_PATH = re.compile(r"`((?:flows|tasks|db|leadloop|docs|tests)/[\w./-]*|[\w-]+\.(?:yaml|toml))`")
_MODULE = re.compile(r"`((?:flows|tasks|db|leadloop)(?:\.[a-z_]+)+)")
_GUIDE = re.compile(r"docs/[\w/-]+\.md(?:#[\w-]+)?")
# Files of a working directory.
_ELSEWHERE = {"prefect.toml", "secrets.toml"}


def _module_exists(name: str) -> bool:
    """Find `leadloop.core.verdicts.classify_response` by its module; tables count as schema."""
    path = ROOT.joinpath(*name.split("."))
    return any(
        each.with_suffix(".py").exists() or (each / "__init__.py").exists()
        for each in (path, path.parent)
        if each != ROOT
    )


@pytest.mark.parametrize(
    "document",
    # The changelog may name files of earlier versions.
    [document for document in _DOCUMENTS if document.name != "CHANGELOG.md"],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_paths_in_documents_exist(document: Path) -> None:
    """A reader who opens a file that a document names finds it."""
    prose = document.read_text(encoding="utf-8")
    paths = set(_PATH.findall(prose)) - _ELSEWHERE
    assert [path for path in sorted(paths) if not (ROOT / path).exists()] == []


def test_modules_in_documents_exist() -> None:
    """A reader who looks for a module that a document names finds it."""
    named = {
        name
        for document in _DOCUMENTS
        for name in _MODULE.findall(document.read_text(encoding="utf-8"))
        # Tables and events: `leadloop.leads`, `leadloop.problem.opt-outs-waiting`.
        if name.startswith(("leadloop.core.", "leadloop.cli.", "tasks.", "flows.", "db."))
    }
    assert [name for name in sorted(named) if not _module_exists(name)] == []


def test_guides_in_code_exist() -> None:
    """A reader who follows a message to a guide finds it, and the section that it names."""
    named = find_named_guides()
    assert named, "nothing was looked at"
    broken = []
    for source, guide in sorted(named):
        path, _, anchor = guide.partition("#")
        file = ROOT / path
        if not file.exists() or (anchor and anchor not in find_anchors(file)):
            broken.append(f"{source}: {guide}")
    assert broken == []


def find_named_guides() -> set[tuple[str, str]]:
    """Return the guides that messages, comments and YAML files name, each with its source."""
    sources = [
        *(file for folder in ("flows", "tasks", "db", "leadloop") for file in _sources(folder)),
        *ROOT.glob("*.yaml"),
        ROOT / "Makefile",
    ]
    return {
        (str(source.relative_to(ROOT)), guide)
        for source in sources
        for guide in _GUIDE.findall(source.read_text(encoding="utf-8"))
    }


def _sources(folder: str) -> list[Path]:
    suffixes = (".py", ".sql", ".json", ".yaml")
    return [file for file in (ROOT / folder).rglob("*") if file.suffix in suffixes]


def test_documents_name_this_release() -> None:
    """The wheel and the image that a reader copies from a document are those of this version."""
    named = {
        (str(document.relative_to(ROOT)), version)
        for document in (ROOT / "docs").rglob("*.md")
        for version in re.findall(r"leadloop[:-](\d+\.\d+\.\d+)", document.read_text("utf-8"))
    }
    assert named
    assert {version for _, version in named} == {__version__}


# `pip install leadloop`, with options and extras, but no path to a wheel.
_BY_NAME = re.compile(
    r"(?:pip3? install|pipx install|uv add|uvx|--with) (?:-\S+ )*['\"]?leadloop(?:[\['\"`\s]|$)"
)


def test_nothing_is_installed_by_leadloops_name() -> None:
    """The name on the package index is not ours: a stranger could publish code under it."""
    assert _BY_NAME.search("pip install --upgrade 'leadloop[monitor]'")
    files = [*_DOCUMENTS, *ROOT.glob("*.yaml"), *ROOT.glob("*file")]
    files += [file for folder in ("flows", "tasks", "db", "leadloop") for file in _sources(folder)]
    found = [
        f"{file.relative_to(ROOT)}: {line.strip()}"
        for file in files
        for line in file.read_text(encoding="utf-8").splitlines()
        if _BY_NAME.search(line)
    ]
    assert found == []
