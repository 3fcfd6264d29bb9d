"""The same promises as in test_input.py, for any text: examples that hypothesis makes up, the same in every run."""

from __future__ import annotations

import shlex

from answers import TEXTS, check_texts, typed
from conftest import Baker
from hypothesis import given, settings
from hypothesis import strategies as st
from test_hooks import ANSWERS, PRE, with_slug

# What means something to Markdown, TOML, Jinja or a shell comes up more often than among all characters.
MARKUP = st.text("aZ9 \\\"'`#*_-+.|<>[](){}%&$!~:;=/\u00e9\u200f\U0001f680", max_size=40)
ANY = st.one_of(MARKUP, st.text(max_size=40), st.text(max_size=700))
SAME_EVERY_RUN = settings(derandomize=True, database=None, deadline=None)


@settings(SAME_EVERY_RUN, max_examples=300)
@given(ANY, st.sampled_from(TEXTS))
def test_any_text_is_accepted_or_has_a_suggestion_that_is(text, key):
    lines, mended = PRE.find_problems({**ANSWERS, key: text})
    if lines:
        assert len(lines) == 1
        assert lines[0].isprintable()
        assert PRE.find_problems({**ANSWERS, **mended}) == ([], {})
    else:
        assert PRE.suggest(key, text) in (text, " ".join(text.split()))  # only spaces are made fewer


@settings(SAME_EVERY_RUN, max_examples=500)
@given(st.one_of(ANY, st.from_regex(r"[a-z0-9-]{1,50}", fullmatch=True), st.sampled_from(sorted(PRE.RESERVED))))
def test_any_slug_is_accepted_or_has_a_suggestion_that_is(slug):
    lines, mended = PRE.find_problems(with_slug(slug))
    suggestion = mended.get("project_slug", slug)
    assert bool(lines) == (suggestion != slug)
    assert PRE.find_problems(with_slug(suggestion)) == ([], {})
    assert suggestion.replace("-", "_").isidentifier()


@settings(SAME_EVERY_RUN, max_examples=300)
@given(st.dictionaries(st.sampled_from(TEXTS), ANY))
def test_the_command_is_one_line_that_a_shell_reads_back(texts):
    answers = {**ANSWERS, **texts}
    _, mended = PRE.find_problems(answers)
    command = PRE.again(answers, mended)
    assert len(command.splitlines()) == 1
    words = dict(word.split("=", 1) for word in shlex.split(command) if "=" in word)
    assert words == {key: mended.get(key, answers[key]) for key in PRE.QUESTIONS}


@settings(SAME_EVERY_RUN, max_examples=30)
@given(texts=st.tuples(ANY, ANY, ANY))
def test_any_text_or_its_suggestion_is_taken_as_it_is(baker: Baker, plain_project, tmp_path_factory, texts):
    answers = {**ANSWERS, **dict(zip(TEXTS, texts, strict=True))}
    _, mended = PRE.find_problems(answers)
    name, description, author = ({**answers, **mended}[key] for key in TEXTS)
    given_texts = dict(zip(TEXTS, map(typed, (name, description, author)), strict=True))
    project = baker.bake(tmp_path_factory.mktemp("any"), project_slug="p", **given_texts)
    check_texts(project, plain_project, name, description, author)
