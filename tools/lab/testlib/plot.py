# SPDX-License-Identifier: GPL-2.0-or-later
"""Plots of what was measured, as SVG that stands by itself in a page of HTML."""
import html
import math

WIDTH = 760
LEFT, RIGHT = 60, 20
COLOURS = "#1f5fa8", "#c2571a", "#2b7a3d", "#7a3d8f"
SHADES = "#eef3fa", "#f8e6da"
STYLE = "font-family: sans-serif; font-size: 12px; background: white"


def ticks(low, high, about=6):
    """Round numbers between the two."""
    raw = (high - low) / about
    power = 10 ** math.floor(math.log10(raw))
    step = next(power * n for n in (1, 2, 5, 10) if power * n >= raw)
    first = math.ceil(low / step)
    return [round(n * step, 10) for n in range(first, math.floor(high / step) + 1)]


def text(x, y, words, anchor="middle"):
    """Words at a place."""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{html.escape(str(words))}</text>'


def line(x1, y1, x2, y2, colour="#999", more=""):
    """A line."""
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" {more}/>'


def svg(height, parts):
    """The whole of it."""
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" style="{STYLE}">\n'
            + "\n".join(parts) + "\n</svg>")


class Scale:
    """Where a number is between two edges."""

    def __init__(self, low, high, start, end):
        margin = 0 if high > low else max(abs(low), 1) / 10
        self.low, self.high = low - margin, high + margin
        self.start, self.end = start, end

    def at(self, value):
        """The place."""
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def ratios(comparison):
    """A comparison: a dot for each round's ratio, a box for the quartiles, a line for the ratio of the medians,
    and a dashed one for the goal."""
    found, whole, (lower, upper) = comparison.ratios(), comparison.ratio(), comparison.quartiles()
    # that of the first leg has no place among ratios
    goal = None if comparison.goal and comparison.goal.of_first else comparison.goal
    marks = found + [whole, 1.0] + ([goal.value] if goal else [])
    room = (max(marks) - min(marks)) / 20
    scale = Scale(min(marks) - room, max(marks) + room, LEFT, WIDTH - RIGHT)
    parts = [f'<rect class="quartiles" x="{scale.at(lower):.1f}" y="14" '
             f'width="{max(scale.at(upper) - scale.at(lower), 1):.1f}" height="32" fill="{SHADES[0]}"/>']
    for tick in ticks(scale.low, scale.high):
        parts += [line(scale.at(tick), 52, scale.at(tick), 57), text(scale.at(tick), 70, f"{tick:g}")]
    parts.append(line(LEFT, 52, WIDTH - RIGHT, 52))
    parts += [f'<circle cx="{scale.at(ratio):.1f}" cy="{22 + 8 * (n % 3)}" r="3" fill="{COLOURS[0]}"/>'
              for n, ratio in enumerate(found)]
    parts.append(line(scale.at(whole), 10, scale.at(whole), 50, COLOURS[1], 'class="ratio" stroke-width="2"'))
    if goal:
        at = scale.at(goal.value)
        parts.append(line(at, 6, at, 52, "#444", 'class="goal" stroke-dasharray="4 3"'))
        parts.append(text(at, 8, f"goal {goal.sense} {goal.value:g}"))
    return svg(78, parts)


def samples(comparison):
    """The same: what was measured of each leg, in the order in which it was."""
    values = [value for _, _, value in comparison.samples]
    high = max(values) or 1
    across = Scale(0, len(values) - 1, LEFT, WIDTH - RIGHT)
    up = Scale(0, high, 110, 16)
    parts = [line(LEFT, 110, WIDTH - RIGHT, 110), line(LEFT, 110, LEFT, 16)]
    for tick in ticks(0, high, 3):
        parts += [line(LEFT - 4, up.at(tick), LEFT, up.at(tick)),
                  text(LEFT - 6, up.at(tick) + 4, f"{tick:g}", "end")]
    for colour, leg in zip(COLOURS, comparison.legs):
        at = [(across.at(n), up.at(value)) for n, (_, name, value) in enumerate(comparison.samples) if name == leg]
        parts.append(f'<polyline fill="none" stroke="{colour}" opacity="0.4" points="'
                     + " ".join(f"{x:.1f},{y:.1f}" for x, y in at) + '"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in at]
    parts += legend(comparison.legs, 128) + [text(LEFT, 10, comparison.unit, "end")]
    return svg(134, parts)


def legend(names, y):
    """Which colour is which."""
    parts = []
    for n, (colour, name) in enumerate(zip(COLOURS, names)):
        x = LEFT + 180 * n
        parts += [f'<circle cx="{x}" cy="{y - 4}" r="4" fill="{colour}"/>', text(x + 10, y, name, "start")]
    return parts


def timeline(picture):
    """A Picture: a curve for each of its lines, over shaded phases with their names."""
    count = max(len(counts) for counts in picture.lines.values())
    high = max(max(counts, default=0) for counts in picture.lines.values()) or 1
    across, up = Scale(0, count * picture.step, LEFT, WIDTH - RIGHT), Scale(0, high, 230, 90)
    parts = []
    for n, (begin, end, name) in enumerate(picture.phases):
        left, right = across.at(max(begin, 0)), across.at(min(end, count * picture.step))
        parts.append(f'<rect class="phase" x="{left:.1f}" y="90" width="{max(right - left, 1):.1f}" height="140" '
                     f'fill="{SHADES[n % 2]}"/>')
        y = 22 + 16 * (n % 4)
        # to the side where there is room
        at, anchor = (left + 3, "start") if left < WIDTH * 2 / 3 else (left - 3, "end")
        parts += [line(left, y - 10, left, 90, "#bbb"), text(at, y, name, anchor)]
    parts += [line(LEFT, 230, WIDTH - RIGHT, 230), line(LEFT, 230, LEFT, 90)]
    for tick in ticks(0, high, 4):
        parts += [line(LEFT - 4, up.at(tick), LEFT, up.at(tick)),
                  text(LEFT - 6, up.at(tick) + 4, f"{tick:g}", "end")]
    for tick in ticks(0, count * picture.step, 8):
        parts += [line(across.at(tick), 230, across.at(tick), 235), text(across.at(tick), 248, f"{tick:g} s")]
    for colour, counts in zip(COLOURS, picture.lines.values()):
        points = []
        for n, value in enumerate(counts):
            points += [f"{across.at(n * picture.step):.1f},{up.at(value):.1f}",
                       f"{across.at((n + 1) * picture.step):.1f},{up.at(value):.1f}"]
        parts.append(f'<polyline fill="none" stroke="{colour}" points="{" ".join(points)}"/>')
    return svg(276, parts + legend(picture.lines, 270) + [text(LEFT - 6, 82, picture.unit, "end")])
