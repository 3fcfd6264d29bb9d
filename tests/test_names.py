"""The pre-generation hook's list of taken names against the packages that are really installed.

A new dependency brings new names: this test then lists what to add to DEPENDENCY_NAMES in hooks/pre_gen_project.py.
"""

from __future__ import annotations

import importlib.metadata
import re

from conftest import PROJECT_FOLDER, TEMPLATE
from test_hooks import PRE


def locked() -> set[str]:
    """The distributions of the lock, normalised."""
    text = (TEMPLATE / PROJECT_FOLDER / "requirements.lock").read_text()
    return {name.lower().replace("_", "-") for name in re.findall(r"^([\w.-]+)==", text, re.MULTILINE)}


def names_of(distribution: importlib.metadata.Distribution) -> set[str]:
    """What a distribution takes: its own name, the imports it provides, the commands in .venv/bin."""
    names = {distribution.metadata["Name"]}
    for path in distribution.files or ():
        if path.parts[0] == "..":
            names |= {path.name} if path.parts[-2] == "bin" and "." not in path.name else set()
        elif not path.parts[0].endswith(".dist-info") and (len(path.parts) > 1 or path.suffix in (".py", ".so")):
            names.add(path.parts[0].split(".")[0])
    return names


def taken() -> set[str]:
    """Every name of the installed lock that a project could be given, as an import name."""
    names = locked()
    for distribution in importlib.metadata.distributions():
        if re.sub(r"[-_.]+", "-", distribution.metadata["Name"]).lower() in locked():
            names |= names_of(distribution)
    slugs = {re.sub(r"[-_.]+", "-", name).lower() for name in names}
    return {slug.replace("-", "_") for slug in slugs if PRE.SLUG.fullmatch(slug) and len(slug) <= PRE.MAX_SLUG}


def test_every_name_of_an_installed_dependency_is_reserved():
    names = taken()
    assert {"torch", "nemo", "megatron", "nemo_toolkit", "yaml", "pyyaml", "torchrun"} <= names
    missing = names - PRE.RESERVED
    assert not missing, f"add to DEPENDENCY_NAMES in hooks/pre_gen_project.py: {' '.join(sorted(missing))}"


def test_the_lists_hold_only_names_that_a_project_could_be_given():
    slugs = [name.replace("_", "-") for name in PRE.RESERVED]
    assert [slug for slug in slugs if not PRE.SLUG.fullmatch(slug) or len(slug) > PRE.MAX_SLUG] == []
