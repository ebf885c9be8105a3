"""Every script finds what it imports; most take too long to be run here."""

import runpy
from pathlib import Path

import pytest

SCRIPTS = sorted(
    path
    for path in (Path(__file__).parents[1] / "scripts").rglob("*.py")
    if path.name != "__init__.py"
)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_finds_what_it_imports(path, monkeypatch):
    monkeypatch.syspath_prepend(str(path.parent))
    assert runpy.run_path(str(path), run_name="imported")["__doc__"].strip()
