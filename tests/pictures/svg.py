"""A film of a terminal as one SVG file, which plays wherever pictures are shown, without a script.

Each shot of a row is a text that an animation makes visible. Who wants no motion sees the last picture.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from tests.pictures import terminal
from tests.pictures.terminal import Piece, Shot

WIDE, HIGH = 8.4, 19
"""A character of the font, in pixels; all browsers stretch what they have to it."""
MARGIN, BAR = 18, 34
BACKGROUND, FRAME, TEXT, FAINT = "#11161d", "#2b333d", "#d7dde4", "#8b97a5"
COLOURS = {
    "default": TEXT,
    "black": FAINT,
    "brightblack": FAINT,
    "red": "#ff7b72",
    "green": "#57c785",
    "brown": "#e3b341",
    "yellow": "#e3b341",
    "blue": "#79b8ff",
    "magenta": "#d2a8ff",
    "cyan": "#56d4dd",
    "white": TEXT,
}
SAME_S = 0.04
"""What is seen for a shorter time than this is left out."""


def as_svg(film: Iterable[Shot], columns: int, rows: int, title: str) -> str:
    """The film in a window. `title` is its name for those who can't see it, too."""
    shots = [shot for shot in film if shot.end_s - shot.begin_s >= SAME_S]
    length_s = max(shot.end_s for shot in shots)
    width, height = columns * WIDE + 2 * MARGIN, rows * HIGH + BAR + MARGIN
    rules, texts = [], []
    for number, shot in enumerate(shots):
        last = shot.end_s == length_s
        rules.append(_rule(number, shot.begin_s / length_s, shot.end_s / length_s, last=last))
        texts.append(_text(number, shot, last=last))
    buttons = "".join(f'<circle cx="{x}" cy="17" r="5.5" fill="{FRAME}"/>' for x in (20, 38, 56))
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height}" role="img">
<title>{escape(title)}</title>
<style>
text{{font:14px ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;fill:{TEXT};white-space:pre}}
.b{{font-weight:700}}
.s{{visibility:hidden;animation:{length_s:.2f}s step-end infinite}}
.l{{visibility:visible}}
@media(prefers-reduced-motion:reduce){{.s{{animation:none!important}}}}
{"".join(rules)}
</style>
<rect width="100%" height="100%" rx="9" fill="{BACKGROUND}" stroke="{FRAME}"/>
{buttons}
{"".join(texts)}
</svg>
"""


def _rule(number: int, begin: float, end: float, *, last: bool) -> str:
    until = "" if last else f"{100 * end:.3f}%{{visibility:hidden}}"
    return (
        f"@keyframes k{number}{{0%{{visibility:hidden}}{100 * begin:.3f}%{{visibility:visible}}{until}}}"
        f"#s{number}{{animation-name:k{number}}}\n"
    )


def _text(number: int, shot: Shot, *, last: bool) -> str:
    if shot.row == terminal.BAR:
        pieces = f'<text x="50%" y="22" text-anchor="middle" style="fill:{FAINT}">{escape(shot.shown[0].text)}</text>'
    else:
        y = BAR + (shot.row + 0.75) * HIGH
        pieces = "".join(_piece(piece, y) for piece in shot.shown)
    return f'<g id="s{number}" class="s{" l" if last else ""}">{pieces}</g>\n'


def _piece(piece: Piece, y: float) -> str:
    colour = COLOURS.get(piece.colour) or f"#{piece.colour}"
    looks = f' style="fill:{colour}"' if colour != TEXT else ""
    bold = ' class="b"' if piece.bold else ""
    x, length = MARGIN + piece.column * WIDE, len(piece.text) * WIDE
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" textLength="{length:.1f}" lengthAdjust="spacingAndGlyphs"{bold}{looks}>'
        f"{escape(piece.text)}</text>"
    )
