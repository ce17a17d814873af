"""Build the wheel and the source archive, look into both, install the wheel and run a small sweep with it.

    python infra/check_wheel.py [--empty] [--tag v0.1.0] [--out dist]

Needs the standard library alone. Without `--empty` the installed wheel uses the packages of the interpreter that runs
this: a minute. With it everything is installed into an empty environment, as a user does: several minutes, and
TORCH_INDEX names one more package index. The sweep starts in an empty folder, from the archive's own sweeps/masks.yaml.
Exits with 1 and one line a fault when something is wrong. `make wheel` runs it; `.ci/run` and the release do too.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import venv
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("orchestrator", "jepa_core")
_BUILT_FROM = (
    "pyproject.toml",
    "MANIFEST.in",
    "README.md",
    "LICENSE",
    "CHANGELOG.md",
    "constraints.txt",
    "sweeps",
)
_SMALL = {
    "data.scenes_train_images": 100,
    "data.scenes_test_images": 100,
    "encoder.width": 32,
    "encoder.depth": 2,
    "encoder.num_heads": 2,
    "train.images": 96,
    "train.report_every_images": 48,
    "train.checkpoint_every_images": 96,
    "probe.every_images": 96,
    "probe.train_images": 60,
    "probe.test_images": 60,
    "sweep.space": '{"masks.target_scale": {"choices": [[0.08, 0.12], [0.15, 0.2]]}}',
}


def main() -> None:
    """Build, look, install, run."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--empty", action="store_true", help="install every dependency into an empty environment"
    )
    parser.add_argument("--tag", help="the release's tag, which must be v and the version")
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="where the wheel and the archive go")
    arguments = parser.parse_args()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    if arguments.tag not in (None, f"v{project['version']}"):
        sys.exit(f"the tag is {arguments.tag} and pyproject.toml says version {project['version']}")
    with tempfile.TemporaryDirectory(prefix="orchestrator-wheel-") as folder:
        work = Path(folder)
        sources = copy_sources(work / "sources")
        wheel, archive = build(sources, work / "tools", arguments.out.resolve())
        faults = [*faults_of_wheel(wheel, sources), *faults_of_archive(archive, sources)]
        if faults:
            sys.exit("\n".join(faults))
        unpacked = unpack(archive, work / "unpacked")
        programs = install(wheel, work / "venv", unpacked / "constraints.txt", empty=arguments.empty)
        run_sweep(programs, unpacked / "sweeps" / "masks.yaml", work)
    print(f"{wheel.name} and {archive.name} are whole, and a sweep ran with the wheel")


def copy_sources(folder: Path) -> Path:
    """Copy what the wheel is built from, so that nothing left from an earlier build can get into it."""
    folder.mkdir()
    for name in (*_BUILT_FROM, *PACKAGES):
        if (ROOT / name).is_dir():
            shutil.copytree(
                ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.py[cod]")
            )
        else:
            shutil.copy(ROOT / name, folder / name)
    return folder


def build(sources: Path, tools: Path, out: Path) -> tuple[Path, Path]:
    """Make the source archive, and the wheel from it; older ones in `out` are removed."""
    for old in [*out.glob("orchestrator-*.whl"), *out.glob("orchestrator-*.tar.gz")]:
        old.unlink()
    python = make_environment(tools)
    pip = [python, "-m", "pip", "install", "--quiet", "--constraint", ROOT / "constraints.txt"]
    run([*pip, "build"])
    run([python, "-m", "build", "--outdir", out, sources], quiet=True)
    (wheel,), (archive,) = out.glob("orchestrator-*.whl"), out.glob("orchestrator-*.tar.gz")
    return wheel, archive


def faults_of_wheel(wheel: Path, sources: Path) -> Iterator[str]:
    """Files that a wheel lacks, and files that do not belong into it."""
    with zipfile.ZipFile(wheel) as file:
        names = set(file.namelist())
    notes = {name for name in names if ".dist-info/" in name}
    wanted = {str(path) for package in PACKAGES for path in files_below(sources, package)}
    yield from (f"{wheel.name}: lacks {name}" for name in sorted(wanted - names))
    yield from (f"{wheel.name}: must not hold {name}" for name in sorted(names - notes - wanted))
    for note in ("METADATA", "entry_points.txt", "licenses/LICENSE"):
        if not any(name.endswith(f".dist-info/{note}") for name in notes):
            yield f"{wheel.name}: lacks {note}"


def faults_of_archive(archive: Path, sources: Path) -> Iterator[str]:
    """Files that a source archive lacks."""
    with tarfile.open(archive) as file:
        names = {name.partition("/")[2] for name in file.getnames()}
    wanted = {str(path) for part in (*_BUILT_FROM, *PACKAGES) for path in files_below(sources, part)}
    yield from (f"{archive.name}: lacks {name}" for name in sorted(wanted - names))


def files_below(sources: Path, part: str) -> Iterator[Path]:
    """The files of a folder, or the file itself, relative to `sources`."""
    start = sources / part
    paths: Iterable[Path] = start.rglob("*") if start.is_dir() else [start]
    return (path.relative_to(sources) for path in paths if path.is_file())


def unpack(archive: Path, folder: Path) -> Path:
    """Unpack a source archive; returns its one folder."""
    with tarfile.open(archive) as file:
        file.extractall(folder, filter="data")
    (root,) = folder.iterdir()
    return root


def install(wheel: Path, folder: Path, constraints: Path, *, empty: bool) -> Path:
    """Install the wheel into a new environment; returns the folder of its programs."""
    python = make_environment(folder)
    pip = [python, "-m", "pip", "install", "--quiet"]
    if empty:
        index = os.environ.get("TORCH_INDEX")
        run([*pip, *(["--extra-index-url", index] if index else []), "--constraint", constraints, wheel])
    else:
        run([*pip, "--no-deps", wheel])
        beside = [path for path in sys.path if Path(path).name == "site-packages"]
        (site_packages,) = (folder / "lib").glob("python*/site-packages")
        (site_packages / "beside.pth").write_text("\n".join(beside))
    found = run([python, "-c", "import orchestrator; print(orchestrator.__file__)"], cwd=folder, quiet=True)
    if folder not in Path(found.strip()).parents:
        sys.exit(f"the sweep would run the orchestrator of {found.strip()}, not that of the wheel")
    return python.parent


def run_sweep(programs: Path, file: Path, work: Path) -> None:
    """Run a small sweep in an empty folder, and look for what it leaves."""
    folder = work / "empty"
    folder.mkdir()
    environment = {**os.environ, "XDG_CACHE_HOME": str(work / "cache"), "RAY_USAGE_STATS_ENABLED": "0"}
    environment.pop("PYTHONPATH", None)
    settings = [word for key, value in _SMALL.items() for word in ("--set", f"{key}={value}")]
    run([programs / "orchestrator", "sweep", file, *settings], cwd=folder, env=environment)
    pages = list(folder.glob("runs/*/report/report.html"))
    if len(pages) != 1:
        sys.exit(f"the sweep left {len(pages)} reports, not one")


def make_environment(folder: Path) -> Path:
    """A virtual environment with pip; returns its interpreter."""
    venv.create(folder, with_pip=True)
    return folder / "bin" / "python"


def run(
    command: list[str | Path],
    *,
    cwd: Path | None = None,
    env: dict[str, str] | None = None,
    quiet: bool = False,
) -> str:
    """Run a program, whose failure ends this one; returns what it prints when it is `quiet`."""
    done = subprocess.run(
        command, cwd=cwd, env=env, text=True, stdout=subprocess.PIPE if quiet else None, check=False
    )
    if done.returncode:
        sys.exit(f"{done.stdout or ''}{' '.join(map(str, command[:4]))} ... ended with {done.returncode}")
    return done.stdout or ""


if __name__ == "__main__":
    main()
