"""Answers to try, those that are taken and those that are not; and how a project holds what a person typed."""

from __future__ import annotations

from conftest import BakedProject
from markdown_it import MarkdownIt

TEXTS = ("project_name", "description", "author")
HOLD_TEXT = {"README.md", "pyproject.toml", "LICENSE"}  # no other file may hold what a person typed
MARKDOWN = MarkdownIt("commonmark").enable(["table", "strikethrough"])
HEAD = ["heading_open", "inline", "heading_close", "paragraph_open", "inline", "paragraph_close"]

ACCEPTED = {
    "plain": "A plain line",
    "one-letter": "x",
    "a-number": "3",
    "yaml-true": "true",
    "yaml-no": "no",
    "yaml-null": "~",
    "double-quotes": 'say "hi"',
    "three-double-quotes": '"""',
    "six-double-quotes": '""""""',
    "single-quote": "it's",
    "three-single-quotes": "'''",
    "backslash": "C:\\new\\table",
    "backslash-at-the-end": "end\\",
    "backslash-quote": '\\"',
    "unicode-escape": "\\u0041 \\x41 \\N{DIGIT ONE}",
    "hash": "# a heading",
    "hash-at-the-end": "C #",
    "seven-hashes": "####### x",
    "colon": "key: value",
    "percent": "100% %s %(x)s %%",
    "dollar": "$HOME ${HOME} $$ $(HOME)",
    "math": "$x$ and $$y$$",
    "command-substitution": "$(touch harm) `touch harm`",
    "shell": "; rm -rf x && y | z > w < v & # *?[a] ~ !",
    "make": "make love, $(shell touch harm) $@ $<",
    "single-braces": "{braces} } }} %} #}",
    "f-string": "{x!r:>{y}}",
    "accents": "Zoë Ångström",
    "combining": "Zoe\u0308",
    "chinese": "数字",
    "emoji": "🚀 👩\u200d🔬",
    "hebrew": "\u200fשלום\u200f",  # noqa: RUF001
    "right-to-left-override": "\u202eabc\u202c",
    "zero-width": "a\u200bb",
    "byte-order-mark": "\ufeffabc",
    "no-break-space": "Zoë\u00a0et\u00a0Co",
    "outside-the-basic-plane": "𐎠𐎡 𝌆",
    "comma": "Doe, Jane (Lab), et al.",
    "address": "Jane Doe <jane@example.org>",
    "two-spaces": "a  b",
    "longest": "long " * 102 + "x!",
    "one-long-word": "x" * 512,
    "fence": "```python",
    "tilde-fence": "~~~",
    "html-comment": "<!-- x",
    "html-open": "<details><summary><b>",
    "html-script": "<script>",
    "html-declaration": "<!DOCTYPE x",
    "bullet": "- x",
    "star-bullet": "* x",
    "plus-bullet": "+ x",
    "number": "1. x",
    "number-bracket": "2) x",
    "quote": "> x",
    "rule": "---",
    "star-rule": "***",
    "underline": "===",
    "table": "| a | b |",
    "table-rule": "|---|---|",
    "emphasis": "*a* _b_ **c** ~~d~~",
    "link": "[a](b) ![c](d)",
    "link-target": "[a]: https://example.org",
    "entity": "&copy; &amp; &#35;",
    "toml": 'x" }]\\',
    "toml-table": "[project]",
    "no-licence": 'license = "none"',
    "the-readmes-own-words": "## Start",
    "the-projects-command": ": p destroy --everything",
}
CONTROL = "must be one line without control characters"
MARKS = "must not hold the marks of a template, which every update would fill in again"
EDGES = "must not begin or end with a space"
EMPTY = "must not be empty"
REFUSED = {
    # the answer, what the line says, what it suggests
    "expression": ("{{ x }}", MARKS, "{ { x }}"),
    "the-templates-own": ("{{ cookiecutter.author }}", MARKS, "{ { cookiecutter.author }}"),
    "statement": ("{% if x %}", MARKS, "{ % if x %}"),
    "end-of-raw": ("{% endraw %}{{ x }}", MARKS, "{ % endraw %}{ { x }}"),
    "comment": ("a {# b", MARKS, "a { # b"),
    "braces": ("{{{{", MARKS, "{ { { {"),
    "newline": ("two\nlines", CONTROL, "two lines"),
    "newline-at-the-end": ("a\n", CONTROL, "a"),
    "carriage-return": ("a\rb", CONTROL, "a b"),
    "table-of-toml": ('x"\n[tool.x]\ny = "', CONTROL, 'x" [tool.x] y = "'),
    "tab": ("a\tb", CONTROL, "a b"),
    "nul": ("a\0b", CONTROL, "a b"),
    "escape": ("\x1b[31mred", CONTROL, "[31mred"),
    "delete": ("a\x7fb", CONTROL, "a b"),
    "next-line": ("a\x85b", CONTROL, "a b"),
    "line-separator": ("a\u2028b", CONTROL, "a b"),
    "paragraph-separator": ("a\u2029b", CONTROL, "a b"),
    "half-a-character": ("a\ud83d", CONTROL, "a"),
    "empty": ("", EMPTY, "Unnamed"),
    "spaces": ("  ", EMPTY, "Unnamed"),
    "invisible": ("\u200b\u200f", EMPTY, "Unnamed"),
    "leading-space": (" a", EDGES, "a"),
    "trailing-space": ("a ", EDGES, "a"),
    "no-break-space": ("\u00a0a", EDGES, "a"),
    "too-long": ("x" * 513, "is 513 characters long, at most 512 fit", "x" * 512),
    "very-long": ("word " * 20_000 + "end", "is 100003 characters long", ("word " * 103)[:512].strip()),
}
GOOD_SLUGS = ("a", "x2", "my-3d-model", "mnist-megatron", "true", "null", "yes", "nan", "e2e", "match", "x" * 40)
BAD_SLUGS = {
    "capitals": ("My-Model", "must be lower-case letters", "my-model"),
    "underscore": ("my_model", "must be lower-case letters", "my-model"),
    "space": ("my model", "must be lower-case letters", "my-model"),
    "newline": ("my\nmodel", "must be lower-case letters", "my-model"),
    "digit-first": ("3d", "must be lower-case letters", "project-3d"),
    "hyphen-first": ("-x", "must be lower-case letters", "x"),
    "hidden": (".x", "must be lower-case letters", "x"),
    "quote": ('x"y', "must be lower-case letters", "x-y"),
    "shell": ("$(touch harm)", "must be lower-case letters", "touch-harm"),
    "expression": ("{{ x }}", "must be lower-case letters", "x"),
    "accent": ("café", "must be lower-case letters", "cafe"),
    "emoji": ("🚀", "must be lower-case letters", "project"),
    "right-to-left": ("\u202exyz", "must be lower-case letters", "xyz"),
    "two-folders": ("a/b", "must be lower-case letters", "a-b"),
    "another-folder": ("../up", "must be lower-case letters", "up"),
    "too-long": ("x" * 41, "is 41 characters long", "x" * 40),
    "keyword": ("class", "would make the package 'class', a Python keyword", "class-project"),
    "standard-library": ("json", "would make the package 'json', a module", "json-project"),
    "dependency": ("torch", "would make the package 'torch', a name", "torch-project"),
}
# From a file: not text, and choices that there are not.
BAD_VALUES = [
    ("project_name", True, "must be text", "True"),
    ("project_name", 3, "must be text", "3"),
    ("project_name", None, "must be text", "Unnamed"),
    ("project_slug", 3.5, "must be text", "project-3-5"),
    ("project_slug", None, "must be text", "project"),
    ("project_slug", ["a", "b"], "must be text", "a-b"),
    ("description", ["a"], "must be text", "['a']"),
    ("description", {"a": 1}, "must be text", "{'a': 1}"),
    ("author", False, "must be text", "False"),
    ("license", "GPL", "must be one of Apache-2.0, MIT, BSD-3-Clause, none", "Apache-2.0"),
    ("license", "mit", "must be one of Apache-2.0, MIT, BSD-3-Clause, none", "MIT"),
    ("license", None, "must be one of", "Apache-2.0"),
    ("license", "", "must be one of", "Apache-2.0"),
    ("license", "../secret", "must be one of", "Apache-2.0"),
    ("ci", "jenkins", "must be one of github, gitlab, none", "github"),
    ("ci", False, "must be one of github, gitlab, none", "github"),
    ("ci", ["none"], "must be one of github, gitlab, none", "github"),
]


def typed(text: str) -> str:
    """What cookiecutter must be given to see this text, as if typed at a prompt: it renders what it is given."""
    return text.replace("{", "{{ '{' }}")


def check_texts(project: BakedProject, plain: BakedProject, name: str, description: str, author: str) -> None:
    """The texts are where they belong, exactly, and nothing else differs from a plain project."""
    files, others = project.files(), plain.files()
    assert {path for path in files.keys() | others.keys() if files.get(path) != others.get(path)} <= HOLD_TEXT
    pyproject, known = project.pyproject, plain.pyproject
    changed = {"description": description, "authors": [{"name": author}], "license": pyproject["project"]["license"]}
    assert pyproject == {**known, "project": {**known["project"], **changed}}
    readme, usual = (MARKDOWN.parse(content["README.md"].decode()) for content in (files, others))
    assert [part.type for part in readme[:6]] == HEAD
    seen = [[(piece.type, piece.content) for piece in part.children] for part in (readme[1], readme[4])]
    assert seen == [[("text", name)], [("text", description)]]
    assert [(part.type, part.content) for part in readme[6:]] == [(part.type, part.content) for part in usual[6:]]
    owners = [line.partition("Copyright ")[2].removeprefix("(c) ") for line in files["LICENSE"].decode().split("\n")]
    assert author in owners
