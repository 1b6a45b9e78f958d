import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = ("omni", "encoders", "decoders", "runtime", "demo")
MAY_IMPORT = {
    "omni": {"omni"},
    "encoders": {"omni", "encoders"},
    "decoders": {"omni", "decoders"},
    "runtime": {"omni", "encoders", "decoders", "runtime"},
    "demo": {"omni", "encoders", "decoders", "runtime", "demo"},
}


def module_level_imports(path: Path) -> set[str]:
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("room", ROOMS)
def test_imports_run_one_way(room):
    files = list((ROOT / room).rglob("*.py"))
    assert files
    for path in files:
        foreign = module_level_imports(path) & set(ROOMS) - MAY_IMPORT[room]
        assert not foreign, f"{path} imports {foreign}"


@pytest.mark.parametrize("module", ["omni", "omni.client", "omni.weights", "omni.cli"])
def test_what_users_import_first_does_not_load_torch(module):
    code = f"import sys, {module}; print('torch' in sys.modules)"
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert ran.stdout.strip() == "False"


def test_the_constraints_hold_the_pinned_torch():
    lines = (ROOT / "constraints.txt").read_text().split()
    assert "torch==2.13.0" in lines


def test_shipped_data_stays_small():
    tracked = [
        path
        for room in ROOMS
        for path in (ROOT / room).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    ]
    assert sum(path.stat().st_size for path in tracked) < 60e6
