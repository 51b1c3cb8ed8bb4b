"""The commands that documents, automations, problems and messages name."""

import ast
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

ROOT = Path(__file__).parents[2]
_PROGRAMS = ("leadloop", "prefect")
_FENCED = re.compile(r"^ *```(\w*)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(rf"`((?:{'|'.join(_PROGRAMS)}) [^`]+)`")
# Without code marks, as in messages on a terminal: a name with options.
_UNMARKED = re.compile(r"\bleadloop [a-z][a-z-]*(?: --[a-z][a-z-]*(?: [A-Z]+\b)?)+")
_SEPARATOR = re.compile(r"[|&;<>()]+")
_ASSIGNMENT = re.compile(r"\w+=")


@dataclass(frozen=True, kw_only=True)
class DocumentedCommand:
    """A command of a shell block, ready to copy: its words without redirections.

    Attributes:
        document: where it is.
        words: the program's name, and its arguments.
        comment: what the document states about it, to the right of it.
    """

    document: str
    words: tuple[str, ...]
    comment: str = ""

    def __str__(self) -> str:
        """Return the command as it is typed."""
        return shlex.join(self.words)


def list_documents() -> list[Path]:
    """Return all documents but the changelog, which may name what is gone."""
    documents = [*ROOT.glob("*.md"), *sorted((ROOT / "docs").rglob("*.md"))]
    return [each for each in documents if each.name != "CHANGELOG.md"]


def find_blocks(document: Path, language: str) -> list[str]:
    """Return the fenced blocks of a language."""
    found = _FENCED.findall(document.read_text(encoding="utf-8"))
    return [dedent(block) for name, block in found if name == language]


def list_copied() -> list[DocumentedCommand]:
    """Return the commands of all shell blocks, in order."""
    return [
        command
        for document in list_documents()
        for block in find_blocks(document, "sh")
        for command in parse_block(block, str(document.relative_to(ROOT)))
    ]


def parse_block(block: str, document: str) -> list[DocumentedCommand]:
    """Return the commands of a shell block; without its heredocs."""
    block = re.sub(r"<<'(\w+)'\n.*?^\1$", "", block, flags=re.MULTILINE | re.DOTALL)
    lines = block.replace("\\\n", " ").splitlines()
    return [
        DocumentedCommand(document=document, words=tuple(words), comment=_find_comment(line))
        for line in lines
        for words in _split_line(line)
    ]


def _split_line(line: str) -> Iterator[list[str]]:
    """Yield the words of each command of a line that runs one of our programs."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    lexer.commenters = "#"
    parts: list[list[str]] = [[]]
    for word in lexer:
        if _SEPARATOR.fullmatch(word):
            # What follows a redirection is a file, and no command of ours.
            parts.append([])
        else:
            parts[-1].append(word)
    for words in parts:
        while words and _ASSIGNMENT.match(words[0]):
            words = words[1:]
        names = [Path(word).name for word in words]
        if names and names[0] == "docker":
            # The program in a container follows the name of the image or the service.
            place = next((n for n, word in enumerate(words) if word in _PROGRAMS), len(words))
            words, names = words[place:], names[place:]
        if names and names[0] in _PROGRAMS:
            yield [names[0], *words[1:]]


def _find_comment(line: str) -> str:
    return line.partition(" # ")[2].strip()


def list_mentioned() -> list[tuple[str, str]]:
    """Return the commands in sentences, each with its source: of prose, YAML and messages."""
    prose = [
        (str(document.relative_to(ROOT)), _FENCED.sub("", document.read_text(encoding="utf-8")))
        for document in [*list_documents(), ROOT / "automations.yaml", ROOT / "prefect.yaml"]
    ]
    return sorted(
        {
            (source, " ".join(span.split()))
            for source, text in [*prose, *_list_messages()]
            for span in (*_SPAN.findall(text), *_UNMARKED.findall(text))
        }
    )


def _list_messages() -> Iterator[tuple[str, str]]:
    """Yield the texts of the product's code and schema; a value in a text is `VALUE`."""
    for package in ("flows", "tasks", "db", "leadloop"):
        for file in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Constant | ast.JoinedStr):
                    yield str(file.relative_to(ROOT)), _read_text(node)
        for file in sorted((ROOT / package).rglob("*.sql")):
            yield str(file.relative_to(ROOT)), file.read_text(encoding="utf-8")


def _read_text(node: ast.expr) -> str:
    if isinstance(node, ast.JoinedStr):
        return "".join(
            _read_text(each) if isinstance(each, ast.Constant) else "VALUE" for each in node.values
        )
    value = node.value if isinstance(node, ast.Constant) else ""
    return value if isinstance(value, str) else ""
