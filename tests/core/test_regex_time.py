"""No regular expression of the product takes quadratic time (ReDoS), on whatever text.

Every pattern is found and attacked without being listed here. A quadratic one takes hours for a
megabyte, so that the time limit of the test tells it from a linear one on any machine.
"""

import ast
import importlib
import re
import string
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice, permutations, product
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from leadloop.core.postgres_json import parse_json
from leadloop.core.redaction import redact_personal_data
from tasks.rejection_streak import RejectionStreak

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

_ROOT = Path(__file__).parents[2]
_PACKAGES = ("leadloop", "db", "tasks", "flows")
_MEGABYTE = 2**20
# Long enough for a quadratic pattern to be a thousand times as slow as a linear one.
_TRIAL = 2**12

_parser = importlib.import_module("re._parser")

Method = Callable[[re.Pattern[Any], Any], object]
#: What makes each method do all of its work.
_METHODS: Mapping[str, Method] = {
    "match": lambda pattern, text: pattern.match(text),
    "fullmatch": lambda pattern, text: pattern.fullmatch(text),
    "search": lambda pattern, text: pattern.search(text),
    "split": lambda pattern, text: pattern.split(text),
    "findall": lambda pattern, text: pattern.findall(text),
    "finditer": lambda pattern, text: sum(1 for _ in pattern.finditer(text)),
    "sub": lambda pattern, text: pattern.sub("", text),
    "subn": lambda pattern, text: pattern.subn("", text),
}
#: Functions that make a pattern of what they are given. Each has a test of its own below.
_MADE_AT_RUN_TIME = {
    "leadloop.core.redaction: re.finditer(pattern, folded)",
    "leadloop.core.redaction: re.sub(f'(?<!\\\\w){re.escape(lead_id)}(?!\\\\w)', mark, text)",
}


@dataclass(frozen=True, kw_only=True)
class Use:
    """A pattern of the product, and a method by which the product uses it."""

    where: str
    pattern: re.Pattern[Any]
    method: str


def _modules() -> Iterator[tuple[str, ast.Module]]:
    """Parse the modules of the product that use `re`."""
    for package in _PACKAGES:
        for file in sorted((_ROOT / package).rglob("*.py")):
            tree = ast.parse(file.read_text())
            imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import)]
            if any(alias.name == "re" for node in imports for alias in node.names):
                parts = file.relative_to(_ROOT).with_suffix("").parts
                yield ".".join(parts).removesuffix(".__init__"), tree


def _uses() -> Iterator[Use]:
    for name, tree in _modules():
        module = importlib.import_module(name)
        yield from _module_level(module, tree)
        for call in _calls_of_re(tree):
            with suppress(NameError):
                yield _inline(module, call)


def _module_level(module: ModuleType, tree: ast.Module) -> Iterator[Use]:
    for name, value in vars(module).items():
        for number, pattern in enumerate(_patterns_in(value)):
            # A pattern that is only passed on is tried by the most that can be done with it.
            for method in sorted(_methods_of(name, tree) or {"finditer", "match", "fullmatch"}):
                yield Use(
                    where=f"{module.__name__}.{name}[{number}].{method}",
                    pattern=pattern,
                    method=method,
                )


def _patterns_in(value: object) -> Iterator[re.Pattern[Any]]:
    if isinstance(value, re.Pattern):
        yield value
    elif isinstance(value, Mapping):
        yield from _patterns_in([*value.values()])
    elif isinstance(value, list | tuple | set | frozenset):
        for item in value:
            yield from _patterns_in(item)


def _methods_of(name: str, tree: ast.Module) -> set[str]:
    """Return the methods that are called, or passed on, of a variable or of what is in it."""
    names = {name}
    for node in ast.walk(tree):
        if isinstance(node, ast.comprehension | ast.For) and _root(node.iter) in names:
            names.add(_root(node.target) or name)
    return {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr in _METHODS and _root(node.value) in names
    }


def _root(node: ast.expr) -> str | None:
    """Return the name of a variable, or of the one that a part is taken of."""
    while isinstance(node, ast.Subscript | ast.Attribute | ast.Call):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.id if isinstance(node, ast.Name) else None


def _calls_of_re(tree: ast.Module) -> Iterator[ast.Call]:
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and isinstance(node.func.value, ast.Name)
            and node.func.value.id == "re"
            and node.func.attr in _METHODS
        ):
            yield node


def _inline(module: ModuleType, call: ast.Call) -> Use:
    """Compile the pattern of a call such as `re.sub("a+", ...)`.

    Raises:
        NameError: it is made of variables of a function.
    """
    assert isinstance(call.func, ast.Attribute)
    flags = [keyword.value for keyword in call.keywords if keyword.arg == "flags"]
    pattern, *given = (
        eval(compile(ast.Expression(node), "<pattern>", "eval"), vars(module))
        for node in (call.args[0], *flags)
    )
    return Use(
        where=f"{module.__name__}:{ast.unparse(call.func)}({pattern})",
        pattern=re.compile(pattern, *given),
        method=call.func.attr,
    )


_USES = list(_uses())


def _attacks(pattern: re.Pattern[Any]) -> Iterator[tuple[str, str, str]]:
    """Make the texts that a pattern may read again and again: a start, a unit to repeat, an end."""
    tree = _parser.parse(pattern.pattern, pattern.flags)
    attacker = _Attacker(pattern.pattern)
    repeated = list(dict.fromkeys(attacker.repeated(tree)))
    signs = list(dict.fromkeys(attacker.signs(tree)))
    units = dict.fromkeys([*repeated, *signs, *attacker.samples(tree)])
    pairs = ["".join(pair) for pair in permutations([*repeated[:12], *signs[:12]], 2)]
    starts = list(dict.fromkeys(["", *attacker.starts(tree)]))
    ends = ["", *attacker.foreign(signs)]
    yield from islice(product(starts[:1], [*units, *pairs], ends), 1000)
    yield from islice(product(starts[1:40], [*repeated, *signs[:6]], ends), 1500)


class _Attacker:
    """Writes examples of what the nodes of a parsed pattern match."""

    def __init__(self, source: str | bytes) -> None:
        text = source if isinstance(source, str) else source.decode("latin-1")
        # What a class has in common with the rest of the pattern is read by more than one way.
        self._alphabet = "".join(
            dict.fromkeys(f"{text}aZ0 -_.\n{string.printable}\x00éß٣ｘ．…\u200b\ud800")
        )

    def samples(self, nodes: Iterable[Any]) -> list[str]:
        """Return texts that the nodes in turn match, which differ in one of them each."""
        each = [self._of(*node) or [""] for node in nodes]
        base = [some[0] for some in each]
        more = (
            "".join([*base[:place], other, *base[place + 1 :]])
            for place, some in enumerate(each)
            for other in some[1:]
        )
        return list(dict.fromkeys(["".join(base), *islice(more, 60)]))

    def _of(self, op: Any, value: Any) -> list[str]:
        name = str(op)
        if name in ("LITERAL", "NOT_LITERAL", "ANY", "IN"):
            return self._chars(op, value)
        if name == "BRANCH":
            return [text for branch in value[1] for text in self.samples(branch)[:9]]
        if name.endswith("_REPEAT"):
            fewest, _, inner = value
            bodies = [text for text in self.samples(inner) if text]
            return [text * times for text in bodies for times in {max(fewest, 1), fewest}][:20]
        if name in ("SUBPATTERN", "ATOMIC_GROUP"):
            return self.samples(_inner(name, value))
        return []

    def _chars(self, op: Any, value: Any) -> list[str]:
        if str(op) == "LITERAL":
            return [chr(value)]
        return [char for char in self._alphabet if _is_in(op, value, char)][:8]

    def signs(self, nodes: Iterable[Any]) -> Iterator[str]:
        """Return the single characters: some of each class, and every literal."""
        for op, value in _walk(nodes):
            yield from self._of(op, value) if str(op) != "LITERAL" else chr(value)

    def repeated(self, nodes: Iterable[Any]) -> Iterator[str]:
        """Return what is repeated in the pattern, once."""
        for op, value in _walk(nodes):
            if str(op).endswith("_REPEAT"):
                yield from filter(None, self.samples(value[2])[:12])

    def starts(self, nodes: Any) -> Iterator[str]:
        """Return texts that lead into the pattern, as far as each of its nodes."""
        for end in range(1, len(nodes) + 1):
            yield from self.samples(list(nodes)[:end])[:6]
        for op, value in nodes:
            for inner in value[1] if str(op) == "BRANCH" else _inners(op, value):
                yield from self.starts(inner)

    def foreign(self, signs: Iterable[str]) -> list[str]:
        """Return characters at which the pattern must give up."""
        known = set(signs)
        return [char for char in ("\x00", "~", "é") if char not in known][:1] or ["\x01"]


def _walk(nodes: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
    for op, value in nodes:
        if str(op) in ("LITERAL", "NOT_LITERAL", "ANY", "IN") or str(op).endswith("_REPEAT"):
            yield op, value
        for inner in value[1] if str(op) == "BRANCH" else _inners(op, value):
            yield from _walk(inner)


def _inners(op: Any, value: Any) -> list[Any]:
    name = str(op)
    nested = name.endswith("_REPEAT") or name in ("SUBPATTERN", "ATOMIC_GROUP")
    return [_inner(name, value)] if nested else []


def _inner(name: str, value: Any) -> Any:
    return value if name == "ATOMIC_GROUP" else value[-1]


def _is_in(op: Any, value: Any, char: str) -> bool:
    """Check whether a node for one character matches it."""
    name = str(op)
    if name == "ANY":
        return True
    if name == "LITERAL":
        return ord(char) == int(value)
    if name == "NOT_LITERAL":
        return ord(char) != int(value)
    if name == "RANGE":
        return int(value[0]) <= ord(char) <= int(value[1])
    if name == "CATEGORY":
        kind = str(value).removeprefix("CATEGORY_")
        letter = kind.removeprefix("NOT_")[0].lower()
        return bool(re.match(f"\\{letter.upper() if kind.startswith('NOT_') else letter}", char))
    items = [item for item in value if str(item[0]) != "NEGATE"]
    return any(_is_in(op, value, char) for op, value in items) is (len(items) == len(value))


def _text(pattern: re.Pattern[Any], attack: tuple[str, str, str], size: int) -> Any:
    start, unit, end = attack
    text = start + unit * (size // len(unit)) + end
    return text if isinstance(pattern.pattern, str) else text.encode("latin-1", "replace")


def _took(use: Use, attack: tuple[str, str, str]) -> float:
    text = _text(use.pattern, attack, _TRIAL)
    begun = time.thread_time()
    _METHODS[use.method](use.pattern, text)
    return time.thread_time() - begun


@pytest.mark.parametrize("use", _USES, ids=lambda use: ascii(use.where))
def test_a_pattern_reads_a_megabyte_of_its_worst(use: Use) -> None:
    """It ends: no answer, file or row keeps a process busy for hours."""
    attacks = [attack for attack in dict.fromkeys(_attacks(use.pattern)) if attack[1]]
    worst = sorted(attacks, key=lambda attack: _took(use, attack), reverse=True)[:6]
    assert worst
    for attack in worst:
        _METHODS[use.method](use.pattern, _text(use.pattern, attack, _MEGABYTE))


def test_every_pattern_is_found() -> None:
    """Those that are made at run time are known, for no other test can try them."""
    found = {use.where for use in _USES}
    for known in ("postgres_json._TOKENS[0].finditer", "redaction._SHAPES[1].finditer"):
        assert f"leadloop.core.{known}" in found
    assert "leadloop.core.response_vocabulary._SUCCESS_WORD[1].match" in found
    assert "leadloop.core.header_values._VISIBLE_ASCII[0].fullmatch" in found
    assert r"leadloop.settings:re.fullmatch(https?://[^\s()<>]+)" in found
    unseen = set()
    for name, tree in _modules():
        for call in _calls_of_re(tree):
            try:
                _inline(importlib.import_module(name), call)
            except NameError:
                unseen.add(f"{name}: {ast.unparse(call)}")
        for part in tree.body:
            if isinstance(part, ast.FunctionDef | ast.ClassDef) and "re.compile(" in ast.unparse(
                part
            ):
                unseen.add(f"{name}: compiled in {part.name}")
    assert unseen == _MADE_AT_RUN_TIME


@pytest.mark.parametrize(
    ("pattern", "worst"),
    [
        (r'"[^"\\]*(?:\\.[^"\\]*)*"', ("", '\\"', "")),
        (r"\s+$", ("", " ", "\x00")),
        (r"\d+x", ("", "0", "\x00")),
        (r"(?:a|b|ab)*c", ("", "ab", "\x00")),
        (r"x\w*y\w*z", ("", "xy", "\x00")),
    ],
)
def test_the_attacks_hold_what_is_worst(pattern: str, worst: tuple[str, str, str]) -> None:
    """Of patterns that are known to be quadratic, or worse, one text is that shows it."""
    assert worst in set(_attacks(re.compile(pattern)))


@pytest.mark.parametrize("unit", [r"\"", r"\\", r"\u00e9", r"\n", '"', r'\"["', r"[\""])
@pytest.mark.parametrize("end", ["", "\\"])
def test_an_answer_that_ends_within_a_text_is_no_json(unit: str, end: str) -> None:
    """Cut off in the midst of its escapes, or after one half of one: it is found at once."""
    content = '{"results": [{"note": "' + unit * (1_300_000 // len(unit)) + end
    with pytest.raises(ValueError):  # noqa: PT011 - the parser's own words
        parse_json(content.encode())


@pytest.mark.parametrize("value", ["a b", "a" * 2000 + "b", "a " * 2000 + "b", "- " * 2000])
@pytest.mark.parametrize("unit", ["a", "a ", "a-", "- ", "a _"])
def test_a_value_is_looked_for_in_a_megabyte(value: str, unit: str) -> None:
    """The pattern that is made of it is linear, and the vendor's text is cut before."""
    assert len(redact_personal_data(unit * (_MEGABYTE // len(unit)), value)) <= 300


@pytest.mark.parametrize("lead_id", ["a", "a" * 300, "-" * 300 + "x", "a-" * 150])
@pytest.mark.parametrize("unit", ["a", "a-", "-", "1"])
def test_an_id_is_looked_for_in_a_megabyte(lead_id: str, unit: str) -> None:
    """The words of a refusal are compared without it."""
    assert RejectionStreak().add_rejections([(lead_id, unit * (_MEGABYTE // len(unit)))]) == []
