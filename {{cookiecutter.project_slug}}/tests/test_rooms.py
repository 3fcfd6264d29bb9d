"""The house: which room may import which, that nothing turns in a circle, and that only `model/` knows the data."""

import ast
import graphlib
import re
from pathlib import Path

import pytest

import {{cookiecutter.__package_name}}

HOUSE = Path({{cookiecutter.__package_name}}.__file__).parent
TESTS = Path(__file__).parent
FILES = {path.relative_to(HOUSE).with_suffix("").as_posix().replace("/", "."): path for path in HOUSE.rglob("*.py")}

# Which rooms each may import, imports for types too. Data flows down this table; nothing points back up.
MAY_IMPORT = {
    "contracts": set(),
    "drawing": set(),
    "layers": {"contracts"},
    "model": {"contracts", "drawing", "layers"},
    "runtime": {"contracts"},
    "training": {"contracts", "model", "runtime"},
    "results": {"contracts", "drawing", "model", "runtime", "training"},
    "proof": {"contracts", "model", "runtime", "training"},
    "planning": {"contracts", "model", "runtime"},
    "door": {"contracts", "model", "planning", "proof", "results", "runtime", "training"},
}
# The door opens at once: what else it needs, it imports when a command runs.
AT_ONCE = {"contracts", "door", "model.settings", "runtime", "training.run_settings"}

# [m], so that this file does not say it
THE_MODELS_WORDS = re.compile(r"[m]nist|[d]igit|[i]mage|[p]ixel|(?<![a-z])[c]lass(?:es|if)", re.IGNORECASE)


def room_of(file):
    """Return the room that a file is in; those in none are the door."""
    return file.split(".")[0] if "." in file else "door"


def imports_of(file):
    """Return (what a file imports of ours at once, what its functions import later)."""
    now, later = set(), set()

    def visit(node, found):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import | ast.ImportFrom):
                found |= ours(child, file)
            elif isinstance(child, ast.Call) and getattr(child.func, "id", "") == "import_room":  # the door does
                found.add(child.args[0].value)
            visit(child, later if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) else found)

    visit(ast.parse(FILES[file].read_text(encoding="utf-8")), now)
    return now, later


def ours(statement, file):
    """Return the files of ours that an import statement reaches."""
    module = getattr(statement, "module", None) or ""
    named = [module] if isinstance(statement, ast.ImportFrom) else [alias.name for alias in statement.names]
    if not getattr(statement, "level", 0):
        assert HOUSE.name not in {name.split(".")[0] for name in named}, f"{file}: imports of ours are relative"
        return set()
    base = [*file.split(".")[: -statement.level], *filter(None, [module])]
    reached = (".".join([*base, alias.name]) for alias in statement.names)
    package = ".".join([*base, "__init__"])
    whole = package if package in FILES else ".".join(base)
    return {name if name in FILES else whole for name in reached}


IMPORTS = {file: imports_of(file) for file in FILES}


def test_every_file_is_in_a_room_of_the_table():
    assert {room_of(file) for file in FILES} == set(MAY_IMPORT)
    assert set().union(*(now | later for now, later in IMPORTS.values())) <= set(FILES)


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_a_room_imports_only_what_the_table_allows(room):
    found = {room_of(name) for file in FILES if room_of(file) == room for part in IMPORTS[file] for name in part}
    assert found - {room} <= MAY_IMPORT[room]
    assert room == "model" or found - {room} == MAY_IMPORT[room], "the table allows what nobody needs"


def test_no_circle_leads_through_rooms_or_files():
    graphlib.TopologicalSorter(MAY_IMPORT).prepare()
    graphlib.TopologicalSorter({file: now | later for file, (now, later) in IMPORTS.items()}).prepare()


def test_the_door_imports_at_once_only_what_needs_no_torch():
    found = {name for file in FILES if room_of(file) == "door" for name in IMPORTS[file][0]}
    assert {name if name in AT_ONCE else room_of(name) for name in found} <= AT_ONCE


def test_only_the_door_imports_later():
    assert {file for file, (_, later) in IMPORTS.items() if later} <= {
        file for file in FILES if room_of(file) in ("door", "model")
    }


def what_it_says(path):
    """Return the words of a file that are the model's to say; what the project is called is no word."""
    text = path.read_text(encoding="utf-8").replace("image/png", "")  # what browsers call a picture
    text = re.sub(rf"\b(?:{HOUSE.name}|{HOUSE.name.replace('_', '-')})\b", "", text)
    return sorted(set(THE_MODELS_WORDS.findall(text)))


def test_nothing_outside_the_model_says_what_is_modelled():
    found = {
        str(path): what_it_says(path)
        for folder in (HOUSE, TESTS)
        for path in folder.rglob("*")
        if path.suffix in (".py", ".md") and path.relative_to(folder).parts[0] != "model"
    }
    assert len(found) > 50
    assert {path: words for path, words in found.items() if words} == {}
