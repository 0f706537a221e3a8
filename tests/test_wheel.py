"""The wheel, built and used as its users would: elsewhere, without the checkout in sight."""

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

import quickstudy

ROOT = Path(__file__).parents[1]
SOURCE = Path(quickstudy.__file__).parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
    build = ("wheel", "--no-build-isolation", "--no-deps", "--wheel-dir", folder, ROOT)
    subprocess.run([*pip, *build], check=True, timeout=120)
    (built,) = folder.glob("*.whl")
    return built


def test_it_holds_what_the_package_holds_and_no_more(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as packed:
        inside = {name for name in packed.namelist() if ".dist-info/" not in name}
    files = (file for file in SOURCE.rglob("*") if file.is_file())
    there = {str(file.relative_to(SOURCE.parent)) for file in files if file.suffix != ".pyc"}
    assert inside == there
    assert wheel.stat().st_size < 15_000_000


def test_an_index_would_take_it(wheel: Path) -> None:
    checked = subprocess.run(
        [sys.executable, "-m", "twine", "check", "--strict", wheel],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_it_works_in_a_fresh_environment(wheel: Path, tmp_path: Path) -> None:
    """Its dependencies are those of this environment, whose own quickstudy is not seen there."""
    environment = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    python = environment / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--quiet", "--python", python)
    subprocess.run([*pip, "install", "--no-deps", "--no-compile", wheel], check=True, timeout=120)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    dependencies = sysconfig.get_path("purelib")  # its .pth files, so the checkout, do not count
    shown = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST", "PYTHON"))}
    shown |= {"PYTHONPATH": dependencies, "OMP_NUM_THREADS": "1"}

    def run(*command: str) -> str:
        done = subprocess.run(
            command, cwd=elsewhere, env=shown, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    where = run(str(python), "-c", "import quickstudy; print(quickstudy.__file__)")
    assert Path(where.strip()).is_relative_to(environment)
    words = ("evaluate", "protonet-omniglot", "--data", "digits", "--tasks", "20", "--way", "5")
    assert "%" in run(str(environment / "bin" / "quickstudy"), *words)
