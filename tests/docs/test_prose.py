"""The style of CONTRIBUTING, as far as a machine can check it."""

import ast
import io
import re
import tokenize
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
_PACKAGES = ("flows", "tasks", "db", "leadloop")

# Words that are out of prose, messages and names, with what to write instead.
_WORDS = {
    r"told|tells": "state, report, show",
    r"whoever": "everyone who, a user who",
    r"nobody's": "name the owner",
    r"nought": "zero",
    r"anew": "again",
    r"mend(?:s|ed|ing)?": "repair, correct, fix",
    r"(?<!there )(?:is|are) (?-i:none)": "state what there is",
    r"so (?:much|many)": "name the amount",
    r"by hand": "local, manual",
    r"says": "state, name, show (a person says)",
    r"troubles?": "failure, error, problem",
    r"books": "records",
    r"by then": "name the time",
    r"for ever": "indefinitely",
    r"of (?:its|their|his|her|our) own": "own, separate",
}
_OUT = {re.compile(rf"\b(?:{words})\b", re.IGNORECASE): hint for words, hint in _WORDS.items()}

# Reviewed: (file, part of the line) that may hold such a word, because a person speaks, or because
# the word is the vendor's.
_MAY_STAY: set[tuple[str, str]] = {
    ("docs/how-to/audit.md", "it said it refused"),
    ("leadloop/core/response_vocabulary.py", ""),  # the vendor's own words
}

# First words of a docstring that are no verb in the imperative, and endings that verbs lack.
_NO_VERB = re.compile(
    r"""(?: An? | About | All | Another | As | At | Be | Both | By | Each | Either | Epoch | Every
    | Everything | Few | For | From | Half | Here | How | I[fnt] | Into | Its | Many | More
    | Most | Neither | Never | No | Nobody | None | Not | Nothing | O[fnr] | One | Once | Only
    | Our | Per | Same | Several | Shorter | Since | So | Some | Somebody | Something | Such
    | Tha[nt] | The | Their | Them | Then | There | These | They | This | Those | True | False
    | Two | Three | Until | Up | We | What | Whatever | When | Where | Whether | Which | While
    | Who | Whole | Whoever | Whose | Why | With | Within | Without | Yes | Id | Json | Lead
    | Line | Message | Name | Number | Path | Row | Statement | Table | Text | Time | Value
    | Window | \w*[^s]s | \w+(?:ing|ed|ly|tion|ness|ment|able|ible) )""",
    re.VERBOSE,
)
_VERB_ALL_THE_SAME = re.compile(
    r"""(?: Bring | Spring | String | Swing | Canvas | Bias | Alias | Embed | Exceed | Feed | Need
    | Proceed | Seed | Shed | Speed | \w*[Pp]ly | Rely | Enable | Disable | Mention | Partition
    | Position | Transition | Complement | Comment | Document | Experiment | Implement | Augment
    | Increment | Decrement | Supplement )""",
    re.VERBOSE,
)
# Reviewed functions whose docstring may open otherwise, as "path:name".
_OTHER_OPENINGS: set[str] = set()

# Modules without a test file of the same name, with the reason.
_TESTED_ELSEWHERE: dict[str, str] = {
    "leadloop/core/campaign_rules.py": "value classes; test_campaigns reads their values",
    "leadloop/monitor/csv_download.py": "a button; test_page downloads each CSV",
    "leadloop/monitor/streamlit_app.py": "Streamlit's entry; the tests open the page in a browser",
    "db/migrations/env.py": "Alembic's entry; test_schema migrates",
}


def _modules() -> list[Path]:
    files = (file for package in _PACKAGES for file in (ROOT / package).rglob("*.py"))
    return sorted(file for file in files if "versions" not in file.parts)


def _shown(file: Path) -> str:
    return str(file.relative_to(ROOT))


def _functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def test_first_word_of_a_docstring_is_a_verb() -> None:
    """A stranger reads what a call does from the first word on."""
    others = []
    for file in _modules():
        for function in _functions(ast.parse(file.read_text(encoding="utf-8"))):
            place = f"{_shown(file)}:{function.name}"
            line = (ast.get_docstring(function) or "").split("\n")[0]
            if line and not _is_described_by_noun(function) and not _is_verb(line.split()[0]):
                others.append(f"{place}: {line}")
    left = [each for each in others if each.split(": ")[0] not in _OTHER_OPENINGS]
    assert not left, _list(left)


def _is_described_by_noun(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Recognise properties, setters and dunder methods."""
    names = {ast.unparse(decorator).split("(")[0] for decorator in function.decorator_list}
    return function.name.startswith("__") or any(
        name.endswith(("property", ".setter", "computed_field")) for name in names
    )


def _is_verb(word: str) -> bool:
    word = word.rstrip(".,:;")
    if not re.fullmatch(r"[A-Z][a-z]+|Re-[a-z]+", word):
        return False
    return bool(_VERB_ALL_THE_SAME.fullmatch(word)) or not _NO_VERB.fullmatch(word)


# A number that is written before a noun in the plural, in a text with values: "{count} leads".
_COUNTED = re.compile(
    r"^ (?:(?!has|holds)[a-z-]+ )?(?:leads|rows|columns|lines|windows|opt-outs|campaigns|runs"
    r"|requests|results|reads|outcomes|batches|pages|creates|attempts|lookups|problems|times|days|minutes|files"
    r"|sessions|connections|tries)\b"
)
# Values that are never 1, as they are written.
_NEVER_ONE = re.compile(
    r"[A-Z_]+|self\._repeated_pages|settings\.rate_limit|listing\.reads|seconds / 86400"
)


def test_counts_agree_with_their_nouns() -> None:
    """No text says "1 leads": `format_count` writes a number with its noun."""
    found = [
        f"{_shown(file)}:{value.lineno}: {ast.unparse(value.value)}{text!r}"
        for file in _modules()
        if "sandbox" not in file.parts
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.JoinedStr)
        for before, value, text in _list_values(node)
        if _COUNTED.match(text)
        if not before.endswith(" of ") and not _NEVER_ONE.fullmatch(ast.unparse(value.value))
    ]
    assert not found, _list(found)


def _list_values(node: ast.JoinedStr) -> Iterator[tuple[str, ast.FormattedValue, str]]:
    """Yield the values of an f-string, each with the texts before and after it."""
    empty = ast.Constant("")
    for before, value, after in zip(
        [empty, *node.values], node.values, [*node.values[1:], empty], strict=False
    ):
        if isinstance(value, ast.FormattedValue):
            texts = [
                str(each.value) if isinstance(each, ast.Constant) else ""
                for each in (before, after)
            ]
            yield texts[0], value, texts[1]


def test_class_names_are_unique() -> None:
    """A stranger who looks for a class finds one."""
    places = defaultdict(list)
    for file in _modules():
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                places[node.name].append(_shown(file))
    assert {name: files for name, files in places.items() if len(files) > 1} == {}


def test_every_module_has_a_test_file() -> None:
    """A developer who changes a module finds its tests by name."""
    tests = {file.stem for file in (ROOT / "tests").rglob("test_*.py")}
    modules = [file for file in _modules() if not file.stem.startswith("__")]
    missing = {_shown(file) for file in modules if f"test_{file.stem}" not in tests}
    left = sorted(missing - set(_TESTED_ELSEWHERE))
    assert not left, _list(left)
    assert len(missing) <= len(modules) / 10
    assert set(_TESTED_ELSEWHERE) <= missing, "no exception is needed any more"


def test_words_that_are_out() -> None:
    """A stranger meets plain technical English in code, messages and documents."""
    found = [
        f"{name}:{line}: {match.group()!r} ({hint}): {text.strip()[:90]}"
        for name, line, text in [*_prose_of_code(), *_prose_of_documents()]
        for pattern, hint in _OUT.items()
        for match in pattern.finditer(_without_code(text))
        if not any(name == file and part in text for file, part in _MAY_STAY)
    ]
    assert not found, _list(found)


def _list(places: list[str]) -> str:
    return "\n".join([f"{len(places)} places:", *places])


def _without_code(text: str) -> str:
    """Remove what is in code marks, and paths."""
    return re.sub(r"``?[^`]*``?|\S*/\S*", "", text)


def _prose_of_code() -> Iterator[tuple[str, int, str]]:
    """Yield comments, docstrings and messages, line by line; of SQL, YAML and JSON every line."""
    for file in _modules():
        source = file.read_text(encoding="utf-8")
        for token in tokenize.generate_tokens(io.StringIO(source).readline):
            if token.type in (tokenize.COMMENT, tokenize.STRING) and " " in token.string:
                for number, line in enumerate(token.string.splitlines()):
                    yield _shown(file), token.start[0] + number, line
    for file in [
        *(ROOT / "db" / "schema").glob("*.sql"),
        *ROOT.glob("*.yaml"),
        *(ROOT / "leadloop" / "integrations").iterdir(),
        ROOT / "Makefile",
    ]:
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
            yield _shown(file), number, line


def _prose_of_documents() -> Iterator[tuple[str, int, str]]:
    """Yield the lines of documents, but for blocks of code and the reference."""
    documents = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    for file in documents:
        if "reference" in file.parts:
            continue
        is_code = False
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
            if line.lstrip().startswith("```"):
                is_code = not is_code
            elif not is_code:
                yield _shown(file), number, line
