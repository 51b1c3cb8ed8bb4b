"""Which setting a variable's name means that is no setting itself: a typo, or a synonym."""

from collections.abc import Iterable

#: Names under which people set a setting of another name; all without their underscores.
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
#: A name of this many letters may have two typos, a shorter one has one.
_LONG = 8


def find_intended_setting(name: str, settings: Iterable[str]) -> str | None:
    """Return the setting that a name means, by a synonym or by edit distance.

    A setting's whole name with a word added, as `DB_PASSWORD`, is a name of its own.

    Args:
        name: in capitals, without the prefix of all settings; not itself a setting.
        settings: the names of all settings, likewise.
    """
    letters = _letters(name)
    if letters in _SYNONYMS:
        return _SYNONYMS[letters]
    distances = {
        setting: edit_distance(letters, _letters(setting))
        for setting in settings
        if not _adds_to(name, setting)
    }
    near = {
        setting: distance
        for setting, distance in distances.items()
        if distance <= (2 if len(_letters(setting)) >= _LONG else 1)
    }
    return min(near, key=near.__getitem__, default=None)


def edit_distance(one: str, other: str) -> int:
    """Return how many letters are added, left out or replaced, or swapped with their neighbour.

    (The optimal string alignment distance: a Levenshtein distance with transpositions.)
    """
    before: list[int] = []
    last = list(range(len(other) + 1))
    for i, letter in enumerate(one):
        row = [i + 1]
        for j, their in enumerate(other):
            cost = min(last[j] + (letter != their), last[j + 1] + 1, row[j] + 1)
            if i and j and letter == other[j - 1] and one[i - 1] == their:
                cost = min(cost, before[j - 1] + 1)
            row.append(cost)
        before, last = last, row
    return last[-1]


def _letters(name: str) -> str:
    return name.replace("_", "")


def _words(name: str) -> set[str]:
    return {word for word in name.split("_") if word}


def _adds_to(name: str, setting: str) -> bool:
    """Return whether a name is the setting's whole name with a word or several letters added."""
    more = len(_letters(name)) - len(_letters(setting))
    return _letters(setting) in _letters(name) and (more > 1 or _words(name) > _words(setting))
