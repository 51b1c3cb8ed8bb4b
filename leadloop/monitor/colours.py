"""The palette of Okabe and Ito, safe for colour-blind viewers, and the light and dark themes."""

from typing import Any

#: The series of a chart, in order of use; without yellow, which is invisible on white.
SERIES = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#8C8C8C")
ACCENT, AMBER, GREEN, _, SKY, _, GREY = SERIES
#: Separates neighbouring parts of a chart.
OUTLINE = "#808890"
#: What is critical, and nothing else: no series has it. Text on either background is a shade of it.
CRITICAL = "#D3202F"

_BOTH: dict[str, Any] = {
    "redColor": CRITICAL,
    "orangeColor": AMBER,
    "greenColor": GREEN,
    "blueColor": ACCENT,
    "grayColor": GREY,
}
LIGHT = {
    **_BOTH,
    "primaryColor": "#005A8C",
    "backgroundColor": "#FFFFFF",
    "secondaryBackgroundColor": "#F3F5F7",
    "textColor": "#1B2530",
    "redTextColor": "#B3141F",
    "orangeTextColor": "#805700",
    "greenTextColor": "#00694C",
    "grayTextColor": "#55606B",
}
DARK = {
    **_BOTH,
    "primaryColor": SKY,
    "backgroundColor": "#11161C",
    "secondaryBackgroundColor": "#1C242D",
    "textColor": "#E8EDF2",
    "redTextColor": "#FF8B8B",
    "orangeTextColor": "#F3BC4B",
    "greenTextColor": "#4CD0A7",
    "grayTextColor": "#A7B2BD",
}
