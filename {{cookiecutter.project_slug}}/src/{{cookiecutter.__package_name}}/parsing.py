"""From the words of a command line to settings: flags and YAML files, and what is wrong with them in one line."""

from __future__ import annotations

import re
import shlex
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, fields, is_dataclass
from functools import reduce
from itertools import pairwise
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml

from .contracts.errors import UserError
from .contracts.names import SETTINGS_FILE
from .contracts.settings import by_name
from .model.settings import Settings
from .runtime.launch import is_first_rank
from .training.run_settings import load_settings


def parse(argv: list[str], defaults: Settings, prog: str, description: str, source: str = "") -> Settings:
    """Read settings from the words of a command line and from its --config files, over the defaults.

    Args:
        argv: the words after the command.
        defaults: what holds where nothing is given.
        prog: what `--help` calls the command.
        description: what `--help` says of it.
        source: what it says of `--from RUN`, which is renamed before; nothing if the command has no such flag.

    Raises:
        UserError: a word is no setting, or has no value that the setting can have.
    """
    import jsonargparse

    class Parser(jsonargparse.ArgumentParser):
        def error(self, message: str, *args: Any, **kwargs: Any) -> None:  # type: ignore[override]
            raise UserError(_plain(message, list(self._option_string_actions), _files(argv), values))

    for path in filter(Path.is_file, map(Path, _config_files(argv))):
        _names_in(path)
    values = asdict(defaults)
    jsonargparse.set_parsing_settings(docstring_parse_attribute_docstrings=True)
    parser = Parser(prog=prog, usage="%(prog)s [settings]", description=description, allow_abbrev=False)
    parser.add_argument("--config", action="config", help="YAML file with settings; what follows it wins")
    if source:
        parser.add_argument("--from", metavar="RUN", default=jsonargparse.SUPPRESS, help=source)
    # jsonargparse reads a field's type in the module of the base class, where the same word is the base's own type
    Settings.__init__.__annotations__.update(get_type_hints(Settings))
    parser.add_class_arguments(Settings, as_group=False)
    parser.parse_object(values)  # they may be those of a run; what set_defaults takes is never checked
    parser.set_defaults(values)
    try:
        parsed = parser.parse_args(argv)
    except UnicodeDecodeError:
        raise UserError(f"{_files(argv) or 'a file of settings'} cannot be read: it is not text in UTF-8") from None
    _check_given(parsed.as_dict(), Settings)
    chosen = parser.instantiate(parsed).as_dict()
    chosen.pop("config")
    return Settings(**chosen)


def saved_settings(run: Path) -> Settings:
    """Read the settings of a run folder, with the checks of those that are given; somebody may have edited them.

    Raises:
        UserError: the folder holds no run, or a setting has no value that it can have.
    """
    loaded = load_settings(run)
    try:
        settings = parse([], loaded, prog="", description="")
        problems = settings.problems()
    except UserError as error:
        problems = [str(error)]
    if problems:
        reason = re.sub(r"--(?=\w)", "", problems[0])  # nobody has given a flag
        raise UserError(f"{run / SETTINGS_FILE} cannot be used ({reason}): mend it, or train again")
    saved = dict(by_name(asdict(loaded))).keys() - set(loaded.ONLY_PREDICT)
    if (lacking := sorted(saved - _names_in(run / SETTINGS_FILE))) and is_first_rank():
        names = ", ".join(lacking[:3]) + (f" and {len(lacking) - 3} more" if len(lacking) > 3 else "")
        print(f"warning: {run / SETTINGS_FILE} does not say {names}: the defaults are taken", file=sys.stderr)
    return settings


def _names_in(path: Path) -> set[str]:
    """Return the dotted names that a YAML file gives; UserError for one that is there twice: YAML takes the last."""

    def names(node: yaml.Node | None, prefix: str, above: tuple[yaml.Node, ...]) -> Iterator[str]:
        yield prefix.removesuffix(".")
        if isinstance(node, yaml.MappingNode) and node not in above:
            for key, value in node.value:
                if key.value != "<<":  # what it brings may be given again
                    yield from names(value, f"{prefix}{key.value}.", (*above, node))

    try:
        found = list(names(yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader), "", ()))
    except (OSError, ValueError, yaml.YAMLError):
        return set()  # which the parser tells
    if twice := [name for name, times in Counter(found).items() if times > 1]:
        raise UserError(f"{path} gives {twice[0]} twice: leave one out")
    return set(found)


def _config_files(argv: list[str]) -> list[str]:
    apart = [word for before, word in pairwise(argv) if before == "--config"]
    return [*apart, *(word.removeprefix("--config=") for word in argv if word.startswith("--config="))]


def _files(argv: list[str]) -> str:
    """Name the --config files of a command line."""
    return " or ".join(shlex.quote(name) if name else "--config ''" for name in _config_files(argv))


def _check_given(values: Any, kind: Any, name: str = "") -> None:
    """Raise a UserError for what the parser lets through: null as any setting, and a group that holds none."""
    if is_dataclass(kind):
        if not isinstance(values, dict):
            raise UserError(_wrong(name, values))
        hints = get_type_hints(kind)
        for field in fields(kind):
            _check_given(values[field.name], hints[field.name], f"{name}.{field.name}".lstrip("."))
    elif values is None and NoneType not in (kind, *get_args(kind)):
        raise UserError(_wrong(name, values))


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
    elif match := re.match(r"Parser key \"(.+?)\":.* NestedArg\(key='(.+?)'", line):
        unknown = f"--{match.group(1)}.{match.group(2)}"
    if unknown:
        in_a_group = [option for option in options if option.endswith(f".{unknown.removeprefix('--')}")]
        others = [option for option in options if option != unknown]  # --help is none of a file's settings
        return f"there is no setting {unknown}{did_you_mean(in_a_group[0] if in_a_group else unknown, others)}"
    if match := re.match(r"argument --(\S+): expected one argument", line):
        return _lacking(match.group(1), values)
    if match := re.match(r"argument (\S+): ignored explicit argument", line):
        return f"{match.group(1)} takes no value"
    if match := re.match(r"Key must be a string, got: (.+)\.$", line):
        return f"{files} has {match.group(1)} where the name of a setting should be"
    # the last key, as a group repeats what is wrong inside it
    keys = re.findall(r'Parser key "([^"]+)": (?=(.*))', line)
    if keys and keys[-1][0] != "config":
        return _wrong(keys[-1][0], *_given(keys[-1][1]))
    line = re.sub(r'^Parser key "(.+?)":', r"--\1:", line)
    line = re.sub(r"^Problems parsing config:", f"{files} cannot be read:", line).replace('in "<unicode string>", ', "")
    line = re.sub(r"^Unexpected config:$", f"{files} is empty", line)
    return re.sub(r"^Unexpected config:", f"{files} has no settings by name:", line)


def _given(message: str) -> tuple[str, bool]:
    """Return the value that the parser's message is about, and whether that stands inside a list."""
    is_whole = re.search(r"Union subtypes|Unable to load|<class '(?:tuple|list)'>", message)
    value = re.search(r"Given value:(.*)", message) or re.search(r"Got value:(.*)", message)
    if quoted := re.match(r"Unable to load config (['\"])(.*?)\1", message):
        return quoted.group(2), False
    return value.group(1).strip() if value else message, not is_whole


def _wrong(name: str, value: Any, is_inside: bool = False) -> str:
    """Say what a setting takes, by its type, and what it was given."""
    kind, given = _kind_of(name), "null" if value is None else str(value) or "nothing"
    if is_dataclass(kind):
        return f"--{name} is a group of settings, and cannot be {given}: give them by name"
    is_list = get_origin(kind) in (list, tuple)
    if is_list and is_inside:
        return f"--{name}: expected {_in_words(get_args(kind)[0])} in its list, got {given}"
    if is_list and re.fullmatch(r"(?!None$|null$)[A-Za-z_][\w.,-]*", given):
        return f"--{name}: expected a list, such as '[{given}]'"
    return f"--{name}: expected {_in_words(kind)}, got {given}"


def _kind_of(name: str) -> Any:
    """Return the type of a setting, or of a group of them."""
    return reduce(lambda group, part: get_type_hints(group)[part], name.split("."), Settings)


_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text in quotes", NoneType: "null"}


def _in_words(kind: Any) -> str:
    """Say what a setting of a type takes."""
    origin, kinds = get_origin(kind), get_args(kind)
    if origin is Literal:
        return f"one of {', '.join(map(repr, kinds))}"
    if origin in (Union, UnionType):
        return " or ".join(_in_words(each) for each in sorted(kinds, key=lambda each: each is not NoneType))
    if origin in (list, tuple):
        return f"a list, such as '{'[1, 2]' if kinds[0] in (int, float) else '[a, b]'}'"
    return _WORDS.get(kind, getattr(kind, "__name__", str(kind)))


def _lacking(name: str, values: dict[str, Any]) -> str:
    """Say what could stand after a flag that was given alone."""
    if name == "config":
        return "--config needs a value: a YAML file"
    value: Any = reduce(lambda group, part: group[part], name.split("."), values)
    if isinstance(value, dict):
        return f"--{name} is a group of settings: give one of them, such as --{name}.{next(iter(value))}"
    has_example = value and not isinstance(value, bool | list | tuple)
    return f"--{name} needs a value: {f'{value}, say' if has_example else _in_words(_kind_of(name))}"


def did_you_mean(word: str, known: list[str]) -> str:
    """Return a suggestion in parentheses for an unknown word, or nothing if no known one is close."""
    import difflib

    close = difflib.get_close_matches(word, known, n=1, cutoff=0.75)  # below, the guesses mislead
    return f" (did you mean {close[0]}?)" if close else ""


def rename(argv: list[str], old: str, new: str) -> list[str]:
    """Give a flag its other name, as `--from` is `--run_dir` where a run is read."""
    return [new + word.removeprefix(old) if word == old or word.startswith(f"{old}=") else word for word in argv]
