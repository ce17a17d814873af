import io
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from orchestrator.errors import ConfigError
from orchestrator.jobs.package import CONFIG_NAME, build_package

TEXT = "name: masks\n"


def names_in(package):
    return zipfile.ZipFile(io.BytesIO(package.data)).namelist()


def test_the_package_holds_the_configuration_and_our_code_alone():
    names = names_in(build_package(TEXT))
    assert {CONFIG_NAME, "orchestrator/__main__.py", "jepa_core/step.py", "orchestrator/py.typed"} <= set(
        names
    )
    assert {name.split("/")[0] for name in names} == {CONFIG_NAME, "orchestrator", "jepa_core"}
    assert not [name for name in names if name.endswith(".pyc")]


def test_the_current_folder_is_never_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with (tmp_path / "features.npy").open("wb") as file:
        file.truncate(200 * 10**6)
    package = build_package(TEXT)
    assert "features.npy" not in package.files
    assert len(package.data) < 5e6


def test_the_same_contents_give_the_same_bytes():
    assert build_package(TEXT).data == build_package(TEXT).data
    assert build_package(TEXT).data != build_package("name: other\n").data


def test_without_the_code_only_the_configuration_travels():
    assert names_in(build_package(TEXT, with_code=False)) == [CONFIG_NAME]


def test_named_files_and_folders_travel_too(tmp_path):
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "a.txt").write_text("a")
    (tmp_path / "b.txt").write_text("b")
    package = build_package(
        TEXT, with_code=False, include=[str(tmp_path / "labels"), str(tmp_path / "b.txt")]
    )
    assert sorted(package.files) == ["b.txt", CONFIG_NAME, "labels/a.txt"]


def test_a_package_over_the_limit_is_refused_naming_its_largest_files(tmp_path):
    for name, size in (("huge.bin", 3000), ("large.bin", 2000), ("tiny.txt", 1)):
        (tmp_path / name).write_bytes(b"0" * size)
    with pytest.raises(ConfigError, match=r"largest files: .*huge\.bin.*large\.bin.*tiny\.txt"):
        build_package(TEXT, with_code=False, include=[str(tmp_path)], limit_bytes=4000)


def test_a_missing_file_and_a_name_taken_twice_are_refused(tmp_path):
    (tmp_path / CONFIG_NAME).write_text("")
    with pytest.raises(ConfigError, match="nothing there"):
        build_package(TEXT, include=[str(tmp_path / "absent")])
    with pytest.raises(ConfigError, match="in the package already"):
        build_package(TEXT, include=[str(tmp_path / CONFIG_NAME)])


def test_the_package_runs_by_itself_in_an_empty_folder(tmp_path):
    zipfile.ZipFile(io.BytesIO(build_package(TEXT).data)).extractall(tmp_path)
    code = "import orchestrator, jepa_core; print(orchestrator.__file__, jepa_core.__file__)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [
        f"{tmp_path}/orchestrator/__init__.py",
        f"{tmp_path}/jepa_core/__init__.py",
    ]


@pytest.mark.slow
def test_submit_from_an_installed_wheel_in_an_empty_folder_packs_the_code_and_ignores_a_large_file(tmp_path):
    root = Path(__file__).resolve().parents[2]
    source = tmp_path / "source"
    shutil.copytree(
        root / "orchestrator", source / "orchestrator", ignore=shutil.ignore_patterns("__pycache__")
    )
    shutil.copytree(root / "jepa_core", source / "jepa_core", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(root / name, source / name)
    pip = [sys.executable, "-m", "pip", "-q"]
    quiet = ["--no-deps", "--no-build-isolation", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", *quiet, "-w", str(tmp_path), str(source)], check=True)
    wheel = next(tmp_path.glob("orchestrator-*.whl"))
    subprocess.run([*pip, "install", *quiet, "--target", str(tmp_path / "site"), str(wheel)], check=True)
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "masks.yaml").write_text(
        "storage: {uri: 's3://bucket/runs'}\ntracking: {uri: 'http://mlflow:5000'}\n"
    )
    with (empty / "features.npy").open("wb") as file:
        file.truncate(200 * 10**6)
    command = [
        sys.executable,
        "-m",
        "orchestrator",
        "submit",
        "masks.yaml",
        "--address",
        "http://127.0.0.1:9",
    ]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    done = subprocess.run(command, cwd=empty, env=environment, capture_output=True, text=True)
    assert done.returncode == 7, done.stderr
    size_mb = float(re.search(r"package: \d+ files, ([\d.]+) MB to upload", done.stderr).group(1))
    assert 0.1 < size_mb < 2
    assert "cannot reach http://127.0.0.1:9" in done.stderr
