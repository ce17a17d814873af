"""`make` builds its environment, or says in one line why it cannot. Nothing is installed here."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def program(path: Path, text: str) -> Path:
    """A shell script that can be run by its path."""
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def refusal(python: Path | str, tmp_path: Path) -> list[str]:
    """What `make env` says of an interpreter that it refuses, without make's own last line."""
    done = subprocess.run(
        ["make", "env", f"PYTHON={python}", f"VENV={tmp_path / 'venv'}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2, done.stdout
    assert not (tmp_path / "venv").exists()
    return [line for line in done.stderr.splitlines() if not line.startswith("make")]


@pytest.mark.parametrize("version", ["2.7", "3.6", "3.10", "3.15", "4.0"])
def test_an_interpreter_of_another_version_is_refused_in_one_line(version: str, tmp_path: Path) -> None:
    (line,) = refusal(program(tmp_path / "python", f"echo {version}"), tmp_path)
    assert f"is Python {version}; Python 3.11 to 3.14 is needed" in line
    assert "make PYTHON=" in line


def test_an_interpreter_that_is_not_there_is_refused_in_one_line(tmp_path: Path) -> None:
    (line,) = refusal("python-of-nowhere", tmp_path)
    assert "python-of-nowhere does not run; Python 3.11 to 3.14 is needed" in line


def test_an_interpreter_without_venv_is_refused_in_one_line(tmp_path: Path) -> None:
    text = f'case "$*" in *ensurepip*) echo No module named ensurepip >&2; exit 1;; esac\nexec {sys.executable} "$@"'
    (line,) = refusal(program(tmp_path / "python", text), tmp_path)
    assert "lacks venv or ensurepip; install them" in line
    assert "python3-venv" in line


def test_the_classifiers_and_the_readme_name_the_versions_that_the_package_takes() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    bounds = re.fullmatch(r">=3\.(\d+),<3\.(\d+)", project["requires-python"])
    assert bounds
    minors = range(int(bounds[1]), int(bounds[2]))
    named = [entry for entry in project["classifiers"] if "Python :: 3." in entry]
    assert named == [f"Programming Language :: Python :: 3.{minor}" for minor in minors]
    assert f"Python 3.{minors[0]} to 3.{minors[-1]}" in (ROOT / "README.md").read_text()


@pytest.fixture
def configured(tmp_path: Path) -> dict[str, str]:
    """Variables of a machine that has uv, and whose pip has no configuration."""
    program(tmp_path / "uv", "exit 1")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "INSTALLER"))}
    return {**kept, "PATH": f"{tmp_path}:{os.environ['PATH']}", "PIP_CONFIG_FILE": os.devnull}


def installer(environment: dict[str, str]) -> str:
    """The program that installs, with this interpreter's pip."""
    command = ["sh", str(ROOT / "infra" / "installer.sh"), sys.executable]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.mark.parametrize(
    ("settings", "chosen"),
    [
        ({}, "uv"),
        ({"PIP_TIMEOUT": "60", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}, "uv"),
        ({"PIP_INDEX_URL": "https://mirror.example.org/simple"}, "pip"),
        ({"PIP_FIND_LINKS": "/wheels", "PIP_TIMEOUT": "60"}, "pip"),
        ({"PIP_CONSTRAINT": "/constraints.txt"}, "pip"),
        ({"PIP_CERT": "/certificate.pem"}, "pip"),
        ({"PIP_INDEX_URL": "https://mirror.example.org/simple", "INSTALLER": "uv"}, "uv"),
        ({"INSTALLER": "pip"}, "pip"),
    ],
)
def test_uv_installs_only_where_it_sees_what_pip_sees(
    configured: dict[str, str], settings: dict[str, str], chosen: str
) -> None:
    assert installer({**configured, **settings}) == chosen


def test_a_file_of_pips_configuration_counts_too(configured: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "pip.conf"
    file.write_text("[global]\nextra-index-url = https://mirror.example.org/simple\n")
    assert installer({**configured, "PIP_CONFIG_FILE": str(file)}) == "pip"


def test_pip_installs_where_there_is_no_uv(configured: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "uv").unlink()
    assert installer({**configured, "PATH": "/usr/bin:/bin"}) == "pip"
