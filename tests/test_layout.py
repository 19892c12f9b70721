"""The layout of the package: names that do not repeat, short files, few rooms."""

import ast
import re
from collections import Counter
from fnmatch import fnmatch
from pathlib import Path

import pytest

import pyro_vae

PACKAGE = Path(pyro_vae.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
MOST_LINES = 400
MAPS = {  # folders whose docstring has a table of their files
    path.parent: text
    for path in FILES
    if path.name == "__init__.py"
    and "\n| file" in (text := ast.get_docstring(ast.parse(path.read_text())) or "")
}


def test_no_two_files_share_a_name() -> None:
    names = Counter(path.name for path in FILES if path.name != "__init__.py")
    assert not [name for name, count in names.items() if count > 1]


def test_no_file_is_longer_than_can_be_read_at_once() -> None:
    lines = {path.relative_to(PACKAGE): len(path.read_text().splitlines()) for path in FILES}
    assert not {str(path): count for path, count in lines.items() if count > MOST_LINES}


def test_the_top_level_has_few_modules_and_folders() -> None:
    there = {path.relative_to(PACKAGE).parts[0] for path in FILES}
    modules = there - {"__init__.py", "__main__.py"}
    assert len(modules) < 22, sorted(modules)


@pytest.mark.parametrize("folder", MAPS, ids=lambda folder: str(folder.relative_to(PACKAGE)))
def test_the_map_of_a_folder_names_all_that_is_there(folder: Path) -> None:
    rows = [line for line in MAPS[folder].splitlines() if line.startswith("| `")]
    named = {name for row in rows for name in re.findall(r"`([\w*./]+)`", row.split("|")[1])}
    named = {name.removesuffix("/").removesuffix(".py") for name in named}
    there = {path.stem for path in folder.iterdir() if path.name[0] not in "_."}
    assert not {each for each in there if not any(fnmatch(each, name) for name in named)}
    assert not {name for name in named if not any(fnmatch(each, name) for each in there)}
