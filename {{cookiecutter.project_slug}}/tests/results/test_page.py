"""The page of a report: one document that needs nothing but itself, in which text stays text."""

import base64
from html import unescape
from html.parser import HTMLParser

import pytest

from {{cookiecutter.__package_name}}.drawing.theme import DARK, LIGHT, Picture
from {{cookiecutter.__package_name}}.results.page import Chapter, page

EVIL = "<img src=http://x onerror=y>&\"'"


def chapter(text: str) -> Chapter:
    """Fill every place of a chapter with a text."""
    pictures = {f"{text} {n}": (Picture(light=b"light%d" % n, dark=b"dark%d" % n), text) for n in range(3)}
    return Chapter(text, text, [(text, text, text)] * 2, [text], pictures, [(text, text)])


class Tags(HTMLParser):
    """Collects the tags of a page and every address in it."""

    def __init__(self, document: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.feed(document)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        addresses = ("src", "srcset", "href", "data", "action", "poster", "background")
        self.addresses += [value or "" for name, value in attrs if name in addresses]


@pytest.fixture(scope="module")
def document() -> str:
    return page("two runs", [chapter("first"), chapter("second")])


def test_the_page_needs_nothing_but_itself(document: str) -> None:
    found = Tags(document)
    assert not {"script", "link", "iframe", "object", "embed"} & set(found.tags)
    assert "url(" not in document and "@import" not in document
    kinds, contents = zip(*(address.split(",") for address in found.addresses), strict=True)
    assert len(set(kinds)) == 1 and kinds[0].startswith("data:") and kinds[0].endswith("/png;base64")
    pictures = [b"dark0", b"light0", b"dark1", b"light1", b"dark2", b"light2"]
    assert [base64.b64decode(content, validate=True) for content in contents] == 2 * pictures


def test_the_page_adapts_to_phone_and_dark_mode(document: str) -> None:
    assert '<meta name="viewport" content="width=device-width' in document
    assert document.count('<source media="(prefers-color-scheme: dark)"') == document.count("<img ") == 6
    assert LIGHT.paper in document and DARK.paper in document


def test_details_may_have_several_lines(document: str) -> None:
    assert "small { white-space: pre-line; }" in document


def test_text_is_escaped_wherever_it_stands() -> None:
    harmless, evil = page("HARMLESS", [chapter("HARMLESS")]), page(EVIL, [chapter(EVIL)])
    assert Tags(evil).tags == Tags(harmless).tags
    assert Tags(evil).addresses == Tags(harmless).addresses
    assert unescape(evil) == harmless.replace("HARMLESS", EVIL)


def test_settings_are_shown_where_there_are_some(document: str) -> None:
    assert document.count("Resolved settings") == 2
    assert "Resolved settings" not in page("none", [Chapter("a", "b", [], [], {}, [])])
