"""From the words of a command line to settings: flags and YAML files, and what is wrong with them in one line."""

from __future__ import annotations

import re
from dataclasses import asdict
from functools import reduce
from itertools import pairwise
from typing import Any, get_type_hints

from .contracts.errors import UserError
from .model.settings import Settings


def parse(argv: list[str], defaults: Settings, prog: str, description: str) -> Settings:
    """Read settings from the words of a command line and from its --config files, over the defaults.

    Args:
        argv: the words after the command.
        defaults: what holds where nothing is given.
        prog: what `--help` calls the command.
        description: what `--help` says of it.

    Raises:
        UserError: a word is no setting, or has no value that the setting can have.
    """
    import jsonargparse

    class Parser(jsonargparse.ArgumentParser):
        def error(self, message: str, *args: Any, **kwargs: Any) -> None:  # type: ignore[override]
            raise UserError(_plain(message, list(self._option_string_actions), _files(argv), values))

    values = asdict(defaults)
    jsonargparse.set_parsing_settings(docstring_parse_attribute_docstrings=True)
    parser = Parser(prog=prog, usage="%(prog)s [settings]", description=description, allow_abbrev=False)
    parser.add_argument("--config", action="config", help="YAML file with settings; what follows it wins")
    # jsonargparse reads a field's type in the module of the base class, where the same word is the base's own type
    Settings.__init__.__annotations__.update(get_type_hints(Settings))
    parser.add_class_arguments(Settings, as_group=False)
    parser.parse_object(values)  # they may come from a file; what set_defaults takes is never checked
    parser.set_defaults(values)
    parsed = parser.parse_args(argv)
    for name, value in values.items():
        if isinstance(value, dict) and not isinstance(parsed[name], jsonargparse.Namespace):
            raise UserError(f"--{name} is a group of settings, and cannot be {parsed[name]}")
    chosen = parser.instantiate(parsed).as_dict()
    chosen.pop("config")
    return Settings(**chosen)


def _files(argv: list[str]) -> str:
    """Name the --config files of a command line."""
    apart = [word for before, word in pairwise(argv) if before == "--config"]
    joined = [word.removeprefix("--config=") for word in argv if word.startswith("--config=")]
    return " or ".join(name or "--config ''" for name in (*apart, *joined))


def _plain(message: str, options: list[str], files: str, values: dict[str, Any]) -> str:
    """Turn the parser's message into one line, with a suggestion for an unknown setting or a missing value."""
    line = " ".join(message.split())
    unknown = None
    if match := re.match(r"unrecognized arguments: ([^ =]+)", line):
        unknown = match.group(1)
    elif match := re.match(r"Group '(.+)' does not accept option '(.+)'", line):
        unknown = f"--{match.group(1)}.{match.group(2)}"
    elif match := re.match(r"Option '(.+)' is not accepted", line):
        unknown = f"--{match.group(1)}"
    if unknown:
        in_a_group = [option for option in options if option.endswith(f".{unknown.removeprefix('--')}")]
        return f"there is no setting {unknown}{did_you_mean(in_a_group[0] if in_a_group else unknown, options)}"
    if match := re.match(r"argument --(\S+): expected one argument", line):
        value: Any = reduce(lambda group, name: group[name], match.group(1).split("."), {"config": "FILE", **values})
        return f"--{match.group(1)} needs a value: {'true or false' if isinstance(value, bool) else f'{value}, say'}"
    line = re.sub(r'^Parser key "(.+?)":', r"--\1:", line)
    line = re.sub(r"^Problems parsing config:", f"{files} cannot be read:", line).replace('in "<unicode string>", ', "")
    line = re.sub(r"^Unexpected config:$", f"{files} is empty", line)
    line = re.sub(r"^Unexpected config:", f"{files} has no settings by name:", line)
    line = re.sub(r"Expected a <class 'tuple'>\. Got value: (.+)", r"expected a list, such as '[\1]'", line)
    line = re.sub(r"Expected a typing\.Literal\[(.+?)\]\. Got value:", r"expected one of \1, got", line)
    return re.sub(r"Expected a <class '(\w+)'>\. Got value:", r"expected \1, got", line)


def did_you_mean(word: str, known: list[str]) -> str:
    """Return a suggestion in parentheses for an unknown word, or nothing if no known one is close."""
    import difflib

    close = difflib.get_close_matches(word, known, n=1, cutoff=0.75)  # below, the guesses mislead
    return f" (did you mean {close[0]}?)" if close else ""


def rename(argv: list[str], old: str, new: str) -> list[str]:
    """Give a flag its other name, as `--from` is `--run_dir` where a run is read."""
    return [new + word.removeprefix(old) if word == old or word.startswith(f"{old}=") else word for word in argv]
