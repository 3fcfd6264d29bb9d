"""The house: which room may import which, how large a room may be, and which rooms know the data by name."""

import ast
import graphlib
from pathlib import Path

import pytest

import {{cookiecutter.__package_name}}

HOUSE = Path({{cookiecutter.__package_name}}.__file__).parent
FILES = {path.relative_to(HOUSE).with_suffix("").as_posix().replace("/", "."): path for path in HOUSE.rglob("*.py")}

# Which rooms a room may import from, when it is imported itself. Data flows down this table; nothing points back up.
MAY_IMPORT = {
    # the floor: standard library only, but for the YAML of the settings
    "errors": set(),
    "files": set(),
    "names": set(),
    "data.item": {"errors"},
    "settings": {"data.item"},
    "run_settings": {"errors", "files", "names", "settings"},
    # from the files to the batches
    "data.dataset": {"data.item", "settings"},
    "data.resampling": {"data.item"},
    "data.datamodule": {"data.dataset", "data.item", "data.resampling", "settings"},
    # from the batches to the losses
    "layers": {"data.item", "errors"},
    "model": {"data.item", "layers"},
    "losses": {"data.item", "errors", "names"},
    "config": {"errors", "losses", "model"},
    "module": {"config", "data.item", "errors", "losses", "names"},
    # what a person sees
    "logs": {"files", "names", "run_settings", "settings"},
    "stopping": {"logs"},
    # the cellar
    "runtime.noise": set(),
    "runtime.placeholders": set(),
    "runtime.cpu": set(),
    "runtime.fused_adam": set(),
    "runtime.failures": {"errors"},
    "runtime.orphans": set(),
    "runtime.launch": {"runtime.orphans"},
    "runtime.writer": set(),
    "runtime.clipping": set(),
    "runtime.lone_rank": set(),
    "runtime.weak_hooks": set(),
    "runtime.cuda_graph": {"errors"},
    "runtime.backend": {
        "errors",
        "runtime.clipping",
        "runtime.cpu",
        "runtime.cuda_graph",
        "runtime.failures",
        "runtime.fused_adam",
        "runtime.lone_rank",
        "runtime.orphans",
        "runtime.weak_hooks",
        "runtime.writer",
    },
    "runtime.seal": {"files"},
    "runtime.checkpoint": {"errors", "logs", "runtime.seal"},
    "runtime.rng": {"logs"},
    "runtime.strategy": {"errors", "runtime.cuda_graph"},
    # the only assembler
    "training": {
        "config",
        "data.datamodule",
        "data.dataset",
        "errors",
        "files",
        "logs",
        "module",
        "names",
        "run_settings",
        "runtime.backend",
        "runtime.checkpoint",
        "runtime.rng",
        "runtime.strategy",
        "settings",
        "stopping",
    },
    # what leaves the house: the example stands alone
    "export_example": set(),
    "export": {
        "data.item",
        "errors",
        "export_example",
        "files",
        "logs",
        "names",
        "runtime.backend",
        "runtime.checkpoint",
        "settings",
        "training",
    },
    # what proves that layouts agree
    "proof.ranks": {"errors", "runtime.noise", "runtime.orphans"},
    "proof.preload": {"runtime.noise", "training"},
    "proof.differences": {"names", "runtime.checkpoint"},
    "proof.layouts": {
        "errors",
        "files",
        "names",
        "proof.differences",
        "proof.ranks",
        "runtime.backend",
        "settings",
        "training",
    },
    # what reads a finished run
    "report_figures": set(),
    "report_curves": {"names", "report_figures"},
    "report_html": {"report_figures"},
    "report": {"errors", "files", "names", "report_curves", "report_figures", "report_html"},
    # the front door
    "doctor": {"errors"},
    "parsing": {"errors", "settings"},
    "cli": {"errors", "names", "parsing", "run_settings", "runtime.launch", "runtime.noise", "settings"},
    # packages
    "__init__": {"runtime.placeholders"},
    "__main__": {"cli"},
    "data.__init__": set(),
    "proof.__init__": set(),
    "runtime.__init__": set(),
}

# What a function imports when it is called.
MAY_IMPORT_LATER = {"cli": {"doctor", "export", "proof.layouts", "report", "training"}}

# What you replace by your own, and what puts it together, may say MNIST; every other room would be the wrong place.
KNOW_THE_DATA = {
    "data.dataset",
    "data.resampling",
    "data.datamodule",
    "data.item",
    "model",
    "losses",
    "config",
    "module",
    "training",
    "settings",
}


def tree(room):
    return ast.parse(FILES[room].read_text(encoding="utf-8"))


def imports_of(room):
    """Return (what the room imports of ours at once, what its functions import later); types only do not count."""
    now, later = set(), set()

    def visit(node, found):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and isinstance(child.test, ast.Name) and child.test.id == "TYPE_CHECKING":
                continue
            if isinstance(child, ast.Import | ast.ImportFrom):
                found |= ours(child, room)
            visit(child, later if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) else found)

    visit(tree(room), now)
    return now, later


def ours(statement, room):
    """Return the rooms that an import statement of a room reaches."""
    if isinstance(statement, ast.Import):
        found = {alias.name for alias in statement.names if alias.name.split(".")[0] == HOUSE.name}
        assert not found, f"{room} imports {found}: imports of ours are relative"
        return set()
    assert statement.level or (statement.module or "").split(".")[0] != HOUSE.name, f"{room}: imports are relative"
    if not statement.level:
        return set()
    above = room.split(".")[: -statement.level]
    base = [*above, *(statement.module.split(".") if statement.module else [])]
    reached = {".".join([*base, alias.name]) for alias in statement.names}
    return {name if name in FILES else ".".join(base) for name in reached}


def test_every_room_is_in_the_table():
    assert set(MAY_IMPORT) == set(FILES), "give a new file a line in MAY_IMPORT: the files that it imports"


@pytest.mark.parametrize("room", FILES)
def test_a_room_imports_only_what_the_table_allows(room):
    now, later = imports_of(room)
    assert now <= MAY_IMPORT[room], f"give {room} in MAY_IMPORT what else it imports, if nothing turns round by that"
    assert later - now <= MAY_IMPORT_LATER.get(room, set())


def test_the_table_has_no_circle():
    assert set(graphlib.TopologicalSorter(MAY_IMPORT).static_order()) == set(FILES)


def test_only_these_rooms_know_the_data_by_name():
    texts = {room: path.read_text(encoding="utf-8").lower() for room, path in FILES.items()}
    assert {room for room, text in texts.items() if "mnist" in text} <= KNOW_THE_DATA
