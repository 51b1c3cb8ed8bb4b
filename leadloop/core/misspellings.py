"""Spelling suggestions for variables that are not settings: typos and synonyms."""

from collections.abc import Iterable

#: Synonyms of settings, without underscores.
_SYNONYMS = {
    "DATABASEDSN": "DATABASE_URL",
    "DBDSN": "DATABASE_URL",
    "DBURL": "DATABASE_URL",
    "DSN": "DATABASE_URL",
    "PGURL": "DATABASE_URL",
    "POSTGRESDSN": "DATABASE_URL",
    "POSTGRESQLURL": "DATABASE_URL",
    "POSTGRESURL": "DATABASE_URL",
    "MONITORDBURL": "MONITOR_DATABASE_URL",
    "SOURCEDATABASEURL": "SOURCE_URL",
    "SOURCEDBURL": "SOURCE_URL",
    "APIBASEURL": "API_URL",
    "BASEURL": "API_URL",
    "URL": "API_URL",
    "ACCESSTOKEN": "API_TOKEN",
    "APIKEY": "API_TOKEN",
    "AUTHTOKEN": "API_TOKEN",
    "BEARERTOKEN": "API_TOKEN",
    "TOKEN": "API_TOKEN",
}
#: A name with this many letters or more may have two typos, a shorter one only one.
_TWO_TYPOS_LENGTH = 8


def find_intended_setting(name: str, settings: Iterable[str]) -> str | None:
    """Return the setting that a name probably means, by synonym or edit distance; else None.

    A setting's whole name with a word or several letters added, such as `DB_PASSWORD`, is a
    separate name.

    Args:
        name: the name in capitals without the common prefix; not itself a setting.
        settings: the names of all settings in the same form.
    """
    letters = _strip_underscores(name)
    if letters in _SYNONYMS:
        return _SYNONYMS[letters]
    words = {*name.split("_")} - {""}
    near: dict[str, int] = {}
    for setting in settings:
        wanted = _strip_underscores(setting)
        if wanted in letters:
            adds_letters = len(letters) > len(wanted) + 1
            adds_word = words > {*setting.split("_")} - {""}
            if adds_letters or adds_word:
                continue
        distance = edit_distance(letters, wanted)
        if distance <= (2 if len(wanted) >= _TWO_TYPOS_LENGTH else 1):
            near[setting] = distance
    return min(near, key=near.__getitem__, default=None)


def edit_distance(one: str, other: str) -> int:
    """Return the optimal string alignment distance: Levenshtein with transpositions."""
    before_last: list[int] = []
    last = list(range(len(other) + 1))
    for i, letter in enumerate(one):
        row = [i + 1]
        for j, other_letter in enumerate(other):
            cost = min(last[j] + (letter != other_letter), last[j + 1] + 1, row[j] + 1)
            if i and j and letter == other[j - 1] and one[i - 1] == other_letter:
                cost = min(cost, before_last[j - 1] + 1)
            row.append(cost)
        before_last, last = last, row
    return last[-1]


def _strip_underscores(name: str) -> str:
    return name.replace("_", "")
