"""Small plots as SVG text: lines over a number, and bars. Pure; no library, nothing from elsewhere."""

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Final

WIDTH: Final = 720
HEIGHT: Final = 260
LEFT: Final = 60
RIGHT: Final = 170
TOP: Final = 34
BOTTOM: Final = 40
COLOURS: Final = ("#2f6db3", "#d1662b", "#3a8f4d", "#8a4fa0", "#b33a4b", "#6f6a2a", "#2a9aa0", "#777777", "#c29a1f",
                  "#40486a")
_FONT: Final = 'font-family="sans-serif" font-size="11"'

Points = Sequence[tuple[float, float]]


def ticks(highest: float, about: int = 5) -> list[float]:
    """Round numbers from 0 to `highest` or a little more."""
    if highest <= 0:
        return [0.0, 1.0]
    raw = highest / about
    unit = 10.0 ** math.floor(math.log10(raw))
    step = next(unit * factor for factor in (1, 2, 2.5, 5, 10) if unit * factor >= raw * 0.999)
    return [step * index for index in range(math.ceil(highest / step - 1e-9) + 1)]


def shown(value: float) -> str:
    """A number at an axis or a bar."""
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"


def lines(title: str, across: str, up: str, curves: Mapping[str, Points]) -> str:
    """Curves by name; each a sequence of (x, y), both from 0 on."""
    points = [point for curve in curves.values() for point in curve]
    x_ticks = ticks(max((x for x, _ in points), default=1.0))
    y_ticks = ticks(max((y for _, y in points), default=1.0))
    parts = _frame(title, up, y_ticks)
    for tick in x_ticks:
        x = LEFT + _scaled(tick, x_ticks[-1], WIDTH - LEFT - RIGHT)
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 15}" text-anchor="middle" {_FONT}>{shown(tick)}</text>')
    parts.append(f'<text x="{(LEFT + WIDTH - RIGHT) / 2:.0f}" y="{HEIGHT - 8}" text-anchor="middle" {_FONT}>'
                 f"{escape(across)}</text>")
    for number, (name, curve) in enumerate(curves.items()):
        colour = COLOURS[number % len(COLOURS)]
        drawn = " ".join(f"{LEFT + _scaled(x, x_ticks[-1], WIDTH - LEFT - RIGHT):.1f},{_height(y, y_ticks):.1f}"
                         for x, y in curve)
        parts.append(f'<polyline points="{drawn}" fill="none" stroke="{colour}" stroke-width="1.8"/>')
        parts += _legend(number, name, colour)
    return _svg(parts)


def bars(title: str, up: str, groups: Mapping[str, Mapping[str, float]]) -> str:
    """Stacked bars: of each group the values by name, one on the other."""
    names = list(dict.fromkeys(name for group in groups.values() for name in group))
    y_ticks = ticks(max((sum(group.values()) for group in groups.values()), default=1.0))
    parts = _frame(title, up, y_ticks)
    room = (WIDTH - LEFT - RIGHT) / max(len(groups), 1)
    for position, (label, group) in enumerate(groups.items()):
        x, below = LEFT + room * (position + 0.2), 0.0
        for number, name in enumerate(names):
            value = max(0.0, group.get(name, 0.0))
            top, bottom = _height(below + value, y_ticks), _height(below, y_ticks)
            parts.append(f'<rect x="{x:.1f}" y="{top:.1f}" width="{room * 0.6:.1f}" height="{bottom - top:.1f}" '
                         f'fill="{COLOURS[number % len(COLOURS)]}"/>')
            below += value
        parts.append(f'<text x="{x + room * 0.3:.1f}" y="{_height(below, y_ticks) - 4:.1f}" text-anchor="middle" '
                     f"{_FONT}>{shown(below)}</text>")
        parts.append(f'<text x="{x + room * 0.3:.1f}" y="{HEIGHT - BOTTOM + 15}" text-anchor="middle" {_FONT}>'
                     f"{escape(label)}</text>")
    for number, name in enumerate(names):
        parts += _legend(number, name, COLOURS[number % len(COLOURS)])
    return _svg(parts)


def _scaled(value: float, highest: float, room: float) -> float:
    return value / highest * room


def _height(value: float, y_ticks: Sequence[float]) -> float:
    return HEIGHT - BOTTOM - _scaled(value, y_ticks[-1], HEIGHT - TOP - BOTTOM)


def _frame(title: str, up: str, y_ticks: Sequence[float]) -> list[str]:
    parts = [f'<text x="{LEFT}" y="16" font-family="sans-serif" font-size="13" font-weight="bold">{escape(title)}'
             f'</text><text x="{LEFT}" y="{TOP - 5}" fill="#555" {_FONT}>{escape(up)}</text>']
    for tick in y_ticks:
        y = _height(tick, y_ticks)
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>'
                     f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end" {_FONT}>{shown(tick)}</text>')
    return parts


def _legend(number: int, name: str, colour: str) -> list[str]:
    x, y = WIDTH - RIGHT + 14, TOP + 8 + number * 17
    return [f'<rect x="{x}" y="{y - 8}" width="10" height="10" fill="{colour}"/>'
            f'<text x="{x + 15}" y="{y + 1}" {_FONT}>{escape(name)}</text>']


def _svg(parts: Sequence[str]) -> str:
    inside = "\n".join(parts)
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" '
            f'height="{HEIGHT}">\n<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>\n{inside}\n</svg>\n')
