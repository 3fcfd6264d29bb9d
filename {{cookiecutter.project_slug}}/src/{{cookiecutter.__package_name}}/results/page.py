"""The page of the report: text, figures and pictures in, one self-contained HTML document out.

The page needs no script and loads nothing: the pictures are part of it, each once for light and once for dark screens.
This is the only place that writes HTML, so it is the only place that escapes: callers pass plain text.
"""

import base64
from collections.abc import Iterable
from dataclasses import dataclass
from html import escape

from ..drawing.theme import DARK, LIGHT, Picture, Theme


@dataclass(frozen=True)
class Chapter:
    """One run's part of the page, as plain text and pictures."""

    title: str
    place: str
    headlines: list[tuple[str, str, str]]  # name, value, lines of details
    notes: list[str]
    pictures: dict[str, tuple[Picture, str]]  # name -> (picture, caption)
    settings: list[tuple[str, str]]


def page(title: str, chapters: Iterable[Chapter]) -> str:
    """Return the whole document."""
    head = '<meta charset="utf-8">\n<meta name="viewport" content="width=device-width, initial-scale=1">\n'
    head += f'<meta name="color-scheme" content="light dark">\n<title>{escape(title)}</title>\n<style>{STYLE}</style>'
    body = f"<h1>{escape(title)}</h1>\n" + "\n".join(_section(chapter) for chapter in chapters)
    return f'<!doctype html>\n<html lang="en">\n<head>\n{head}\n</head>\n<body>\n{body}\n</body>\n</html>\n'


def shows(document: str, png: bytes) -> bool:
    """Tell whether a document that `page` returned holds a picture."""
    return _as_text(png) in document


def _section(chapter: Chapter) -> str:
    cards = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd><dd><small>{escape(detail)}</small></dd></div>\n"
        for name, value, detail in chapter.headlines
    )
    parts = [f"<h2>{escape(chapter.title)}</h2>", f"<p><code>{escape(chapter.place)}</code></p>", f"<dl>\n{cards}</dl>"]
    parts += [f'<p class="note">{escape(note)}</p>' for note in chapter.notes]
    parts += ['<div class="pictures">', *(_figure(name, *pair) for name, pair in chapter.pictures.items()), "</div>"]
    if chapter.settings:
        rows = "".join(f"<tr><th>{escape(key)}</th><td>{escape(value)}</td></tr>\n" for key, value in chapter.settings)
        parts.append(f"<details><summary>Resolved settings</summary>\n<table>\n{rows}</table></details>")
    return "<section>\n" + "\n".join(parts) + "\n</section>"


def _figure(name: str, picture: Picture, caption: str) -> str:
    light, dark = (f"data:image/png;base64,{_as_text(png)}" for png in (picture.light, picture.dark))
    source = f'<source media="(prefers-color-scheme: dark)" srcset="{dark}">'
    shown = f'<picture>{source}<img alt="{escape(name)}" src="{light}"></picture>'
    return f"<figure>{shown}<figcaption>{escape(caption)}</figcaption></figure>"


def _as_text(png: bytes) -> str:
    return base64.b64encode(png).decode()


def _colours(theme: Theme, page: str, note: str) -> str:
    """Give the page the colours that the pictures have, so that they sit in it without an edge."""
    drawn = f"--paper: {theme.paper}; --ink: {theme.ink}; --muted: {theme.muted}; --line: {theme.grid};"
    return f":root {{ {drawn} --page: {page}; --note: {note}; }}"


STYLE = f"""
{_colours(LIGHT, "#f3f4f6", "#fff1cc")}
@media (prefers-color-scheme: dark) {{ {_colours(DARK, "#121518", "#40351a")} }}
body {{ max-width: 76rem; margin: 0 auto; padding: 1rem clamp(.75rem, 3vw, 2rem) 3rem; overflow-wrap: anywhere;
  background: var(--page); color: var(--ink); font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", sans-serif; }}
h1 {{ margin: .5rem 0; font-size: 1.9rem; line-height: 1.2; }}
h2 {{ margin: 2.5rem 0 0; font-size: 1.4rem; }}
section > p {{ margin: .1rem 0 1rem; color: var(--muted); font-size: .9rem; }}
section > p.note {{ padding: .6rem .9rem; border-radius: .5rem; background: var(--note); color: var(--ink); }}
code {{ font: .95em ui-monospace, Menlo, Consolas, monospace; }}
dl {{ display: flex; flex-wrap: wrap; gap: .75rem; margin: 0 0 1rem; }}
dl div, figure, details {{ border: 1px solid var(--line); border-radius: .6rem; background: var(--paper); }}
dl div {{ flex: 1 1 9rem; padding: .6rem 1rem; }}
dt, small, figcaption {{ color: var(--muted); font-size: .85rem; }}
small {{ white-space: pre-line; }}
dd {{ margin: 0; font-size: 1.7rem; font-weight: 650; line-height: 1.25; font-variant-numeric: tabular-nums; }}
dd + dd {{ font-size: 1rem; font-weight: 400; }}
.pictures {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 30rem), 1fr)); gap: 1rem; }}
figure {{ margin: 0; padding: .75rem; display: flex; flex-direction: column; box-sizing: border-box; }}
figure:last-child:nth-child(odd) {{ grid-column: 1 / -1; justify-self: center; width: max(50%, min(100%, 30rem)); }}
img {{ display: block; width: 100%; height: auto; }}
figcaption {{ padding: .5rem .25rem 0; }}
details {{ margin-top: 1rem; padding: .6rem 1rem; }}
summary {{ cursor: pointer; font-weight: 600; }}
table {{ margin-top: .5rem; border-collapse: collapse; font-size: .9rem; }}
th, td {{ padding: .2rem 1.5rem .2rem 0; text-align: left; vertical-align: top; border-top: 1px solid var(--line); }}
th {{ font-weight: 400; color: var(--muted); }}
"""
