"""The layout of the package: names that do not repeat, short files, few rooms."""

from collections import Counter
from pathlib import Path

import pyro_vae

PACKAGE = Path(pyro_vae.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
MOST_LINES = 400


def test_no_two_files_share_a_name() -> None:
    names = Counter(path.name for path in FILES if path.name != "__init__.py")
    assert not [name for name, count in names.items() if count > 1]


def test_no_file_is_longer_than_can_be_read_at_once() -> None:
    lines = {path.relative_to(PACKAGE): len(path.read_text().splitlines()) for path in FILES}
    assert not {str(path): count for path, count in lines.items() if count > MOST_LINES}


def test_the_top_level_has_few_modules_and_folders() -> None:
    modules = {path.relative_to(PACKAGE).parts[0] for path in FILES} - {"__init__.py"}
    assert len(modules) < 21, sorted(modules)
