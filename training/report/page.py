"""The report as HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from . import facts as facts_of
from .album import FOLDER, Album, drawn, spread
from .charts import number, svg
from .facts import Facts

STYLE = Path(__file__).parent / "style.css"
FILM = 10
"""Validations shown side by side."""


def html(output: Path) -> str:
    """The whole page of the run in this folder."""
    facts, album = Facts(output), Album(folder=output / FOLDER)
    name = escape(output.absolute().name)
    curves = [svg(chart) for chart in facts_of.charts(facts)]
    parts = [
        f"<header><h1>{name}</h1>{verdict(facts)}</header>",
        tiles(facts),
        alarms(facts),
        f'<section class="charts">{"".join(curves[:2])}</section>' if curves else "",
        pictures(facts, album),
        f'<section class="charts">{"".join(curves[2:])}</section>' if curves[2:] else "",
        settings(facts),
    ]
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{name}</title>'
    style = f"<style>{STYLE.read_text(encoding='utf-8')}</style>"
    return f"<!doctype html><html lang=en><head>{head}{style}</head><body>{''.join(parts)}</body></html>"


def verdict(facts: Facts) -> str:
    """The run in a sentence."""
    converged, finished, steps = facts.of("Converged"), facts.of("Finished"), facts.settings["run"]["steps"]
    if converged:
        said, mood = escape(converged[0]["message"]), "good"
    else:
        said, mood = "It has not been seen to follow its hints yet.", "open"
    over = finished and not finished[-1]["stopped"] and finished[-1]["number"] == facts.last
    where = f"{facts.last} of {steps} steps{'' if over else ', not finished'}."
    return f'<p class="verdict {mood}">{said} <span>{where}</span></p>'


def tiles(facts: Facts) -> str:
    """The figures that matter."""
    run, shown, steps = facts.settings["run"], facts.of("Validated"), facts.of("StepDone")
    found = [("pairs seen", f"{facts.last * run['batch']:,}"), ("pairs a step", str(run["batch"]))]
    if shown and shown[-1]["measure"]:
        scores, name = shown[-1]["scores"], shown[-1]["measure"]
        found.insert(0, (name.replace("_", " "), f"{scores[name]:.3f}"))
        found += [("no control", f"{scores['floor']:.3f}"), ("real pictures", f"{scores['ceiling']:.3f}")]
    if steps:
        seconds = sorted(step["seconds"] for step in steps)[len(steps) // 2]
        found.append(("pairs a second", number(run["batch"] / max(seconds, 1e-9))))
    items = "".join(f"<div><b>{escape(value)}</b><small>{escape(name)}</small></div>" for name, value in found)
    return f'<section class="tiles">{items}</section>'


def alarms(facts: Facts) -> str:
    """What went wrong."""
    items = "".join(
        f"<li><b>Step {event['number']}, {escape(event['kind'])}</b> {escape(event['message'])}</li>"
        for event in facts.of("Alarm")
    )
    return f'<section class="alarms"><ul>{items}</ul></section>' if items else ""


def pictures(facts: Facts, album: Album) -> str:
    """The last validation, and how it came about."""
    shown = {event["number"]: event for event in facts.of("Validated") if album.has(drawn(event["number"]))}
    if not shown:
        return ""
    numbers = sorted(shown)
    last = shown[numbers[-1]]
    film = spread(numbers, FILM)
    columns = {"hint": "hint", **({"without": "0"} if facts.from_nothing else {})}
    columns |= {drawn(step): number(step) for step in film} | {"real": "real"}
    strip = filmstrip(columns, last["captions"], album) if len(film) > 1 else ""
    note = "held-out pairs" if last["held_out"] else "pairs of the training: none are held out"
    title = f"<h2>Step {numbers[-1]} <small>{note}, the same noise for all</small></h2>"
    return f"<section>{title}{latest(last, album)}</section>{strip}"


def latest(event: Mapping[str, Any], album: Album) -> str:
    """A row for each pair: hint, control, no control, real."""
    columns = {"hint": "hint", drawn(event["number"]): "with control", "without": "no control", "real": "real picture"}
    kinds = [kind for kind in columns if album.has(kind)]
    cells = [
        f'<div class="pair"><div class="four">{"".join(picture(album, kind, index, columns[kind]) for kind in kinds)}'
        f"</div><p>{escape(caption) or 'no prompt'}</p></div>"
        for index, caption in enumerate(event["captions"])
    ]
    return f'<div class="pairs">{"".join(cells)}</div>'


def picture(album: Album, kind: str, index: int, label: str) -> str:
    """With its label below."""
    name = escape(label)
    return f'<figure><img src="{album.source(kind, index)}" alt="{name}"><figcaption>{name}</figcaption></figure>'


def filmstrip(columns: Mapping[str, str], captions: Sequence[str], album: Album) -> str:
    """A row for each pair; a column (kind -> its head) for each validation."""
    kinds = [kind for kind in columns if album.has(kind)]
    head = "".join(f"<th>{columns[kind]}</th>" for kind in kinds)
    rows = ["".join(cell(album, kind, index) for kind in kinds) for index in range(len(captions))]
    table = f"<tr>{head}</tr>{''.join(f'<tr>{row}</tr>' for row in rows)}"
    return f'<section><h2>Over the steps</h2><div class="film"><table>{table}</table></div></section>'


def cell(album: Album, kind: str, index: int) -> str:
    """A picture in a table."""
    return f'<td><img src="{album.source(kind, index)}" alt="{kind}"></td>'


def settings(facts: Facts) -> str:
    """What differs from the defaults."""
    rows = "".join(f"<tr><td>{escape(name)}</td><td>{escape(value)}</td></tr>" for name, value in facts.changed)
    return f'<section class="settings"><details><summary>Settings</summary><table>{rows}</table></details></section>'
