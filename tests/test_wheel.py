"""What `infra/check_wheel.py` finds in a wheel and in a source archive."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "infra"))

from check_wheel import copy_sources, faults_of_archive, faults_of_wheel, files_below  # noqa: E402

NOTES = [f"orchestrator-0.dist-info/{name}" for name in ("METADATA", "entry_points.txt", "licenses/LICENSE")]


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_sources(tmp_path_factory.mktemp("wheel") / "sources")


@pytest.fixture
def packaged(sources: Path) -> list[str]:
    """Every file that belongs into a wheel."""
    return [
        str(path) for part in ("orchestrator", "jepa_core") for path in files_below(sources, part)
    ] + NOTES


def faults(names: list[str], sources: Path, folder: Path) -> list[str]:
    """What is said of a wheel that holds these files."""
    with zipfile.ZipFile(folder / "a.whl", "w") as file:
        for name in names:
            file.writestr(name, "")
    return list(faults_of_wheel(folder / "a.whl", sources))


def test_a_whole_wheel_has_no_faults(packaged: list[str], sources: Path, tmp_path: Path) -> None:
    assert "orchestrator/py.typed" in packaged
    assert faults(packaged, sources, tmp_path) == []


@pytest.mark.parametrize("name", ["orchestrator/py.typed", "jepa_core/step.py", NOTES[1]])
def test_a_wheel_that_lacks_a_file_is_told(
    name: str, packaged: list[str], sources: Path, tmp_path: Path
) -> None:
    (fault,) = faults([other for other in packaged if other != name], sources, tmp_path)
    assert f"lacks {name.partition('.dist-info/')[2] or name}" in fault


def test_a_wheel_that_holds_something_else_is_told(
    packaged: list[str], sources: Path, tmp_path: Path
) -> None:
    assert faults([*packaged, "tests/conftest.py"], sources, tmp_path) == [
        "a.whl: must not hold tests/conftest.py"
    ]


def test_an_archive_without_the_sweeps_is_told(sources: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as file:
        file.add(sources, "a", filter=lambda entry: None if entry.name == "a/sweeps/masks.yaml" else entry)
    assert list(faults_of_archive(tmp_path / "a.tar.gz", sources)) == ["a.tar.gz: lacks sweeps/masks.yaml"]


def test_a_tag_of_another_version_is_refused_before_anything_is_built(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "infra" / "check_wheel.py"), "--tag", "v99", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert "the tag is v99 and pyproject.toml says version" in done.stderr
