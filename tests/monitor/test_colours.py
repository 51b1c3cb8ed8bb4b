"""Colours that every viewer can read and tell apart."""

from colorsys import rgb_to_hls
from itertools import product

import pytest

from leadloop.monitor.colours import CRITICAL, DARK, GREY, LIGHT, SERIES

_TEXTS = ("textColor", "redTextColor", "orangeTextColor", "greenTextColor", "grayTextColor")
_BACKGROUNDS = ("backgroundColor", "secondaryBackgroundColor")


def compute_luminance(colour: str) -> float:
    """Return the relative luminance of `#RRGGBB`, as WCAG 2 defines it."""
    shares = (int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5))
    red, green, blue = (s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in shares)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def compute_contrast(one: str, other: str) -> float:
    """Return the contrast ratio of two colours, from 1 to 21."""
    dark, light = sorted(compute_luminance(colour) for colour in (one, other))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize(("text", "background"), list(product(_TEXTS, _BACKGROUNDS)))
def test_text_contrast(theme: dict[str, str], text: str, background: str) -> None:
    """Every text meets WCAG AA (4.5:1) on both backgrounds of both themes."""
    assert compute_contrast(theme[text], theme[background]) >= 4.5


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
def test_series_are_visible(theme: dict[str, str]) -> None:
    """No line or bar vanishes in the background, as yellow would on white."""
    assert min(compute_contrast(colour, theme["backgroundColor"]) for colour in SERIES) > 2


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
def test_critical_has_one_colour(theme: dict[str, str]) -> None:
    """Text, badge and box are shades of one red, which no series of a chart has."""
    hues = {round(compute_hue(theme[name])) for name in ("redColor", "redTextColor")}
    assert max(hues) - min(hues) <= 6
    colours = [each for each in SERIES if each != GREY]
    assert all(abs(compute_hue(each) - compute_hue(CRITICAL)) > 20 for each in colours)


def compute_hue(colour: str) -> float:
    """Return the hue of `#RRGGBB` in degrees from red, from -180 to 180."""
    shares = (int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5))
    hue = 360 * rgb_to_hls(*shares)[0]
    return hue if hue <= 180 else hue - 360


def test_themes_set_the_same_colours() -> None:
    """A colour that one theme sets and the other does not would be Streamlit's default there."""
    assert set(LIGHT) == set(DARK)
