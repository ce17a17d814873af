"""What travels to the cluster: one zip with the resolved configuration, our own code and nothing else.

The folder that `submit` is called in is never read, so what lies there cannot get into the upload. The archive is a
function of its contents: the same configuration and code give the same bytes, and Ray uploads them once.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from orchestrator.errors import ConfigError
from orchestrator.text import counted

CONFIG_NAME = "config.yaml"
MAX_PACKAGE_BYTES = 64 * 2**20
"""Far above what our code and a configuration take, and below the 100 MiB that Ray's dashboard accepts."""
_PACKAGES = ("orchestrator", "jepa_core")
_IGNORED_FOLDERS = frozenset({"__pycache__", ".git", ".venv", "node_modules"})
_NUM_NAMED = 5


@dataclass(frozen=True, kw_only=True)
class Package:
    """An archive in memory: `files` maps the name inside to the size before compression, in bytes."""

    data: bytes
    files: Mapping[str, int]

    def describe(self) -> str:
        """One line: files and size."""
        return f"{counted(len(self.files), 'file')}, {len(self.data) / 1e6:.1f} MB to upload"


def build_package(
    config_text: str,
    *,
    with_code: bool = True,
    include: Iterable[str] = (),
    limit_bytes: int = MAX_PACKAGE_BYTES,
) -> Package:
    """Pack the configuration, our installed packages unless told otherwise, and the files named in `include`.

    Raises:
        ConfigError: A named file is missing, two files have one name, or the whole is larger than `limit_bytes`.
    """
    sources: dict[str, Path | bytes] = {CONFIG_NAME: config_text.encode()}
    for name, path in [*(_code() if with_code else ()), *_included(include)]:
        if name in sources:
            raise ConfigError(f"--include {path}: {name} is in the package already; rename the file")
        sources[name] = path
    sizes = {name: _size(source) for name, source in sources.items()}
    if sum(sizes.values()) > limit_bytes:
        raise ConfigError(_too_big(sizes, limit_bytes))
    return Package(data=_zip(sources), files=sizes)


def _code() -> Iterator[tuple[str, Path]]:
    for package in _PACKAGES:
        spec = find_spec(package)
        assert spec is not None
        assert spec.origin is not None
        root = Path(spec.origin).parent
        yield from _walk(root, package)


def _included(paths: Iterable[str]) -> Iterator[tuple[str, Path]]:
    for text in paths:
        path = Path(text).expanduser().resolve()
        if path.is_dir():
            yield from _walk(path, path.name)
        elif path.is_file():
            yield path.name, path
        else:
            raise ConfigError(f"--include {text}: nothing there; give a file or a folder")


def _walk(root: Path, name: str) -> Iterator[tuple[str, Path]]:
    for path in sorted(root.rglob("*")):
        parts = path.relative_to(root).parts
        if path.is_file() and not _IGNORED_FOLDERS.intersection(parts) and path.suffix != ".pyc":
            yield "/".join((name, *parts)), path


def _size(source: Path | bytes) -> int:
    return len(source) if isinstance(source, bytes) else source.stat().st_size


def _too_big(sizes: Mapping[str, int], limit_bytes: int) -> str:
    largest = sorted(sizes.items(), key=lambda item: -item[1])[:_NUM_NAMED]
    named = ", ".join(f"{name} ({size / 1e6:.1f} MB)" for name, size in largest)
    return (
        f"the package would hold {sum(sizes.values()) / 1e6:.1f} MB, the limit is {limit_bytes / 1e6:.1f} MB; "
        f"the largest files: {named}; put data into a bucket and name it in data.source"
    )


def _zip(sources: Mapping[str, Path | bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, source in sorted(sources.items()):
            info = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            info.compress_type, info.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            archive.writestr(info, source if isinstance(source, bytes) else source.read_bytes())
    return buffer.getvalue()
