"""From `data.source` to a shard set that can be read: opened, described or packed on first use.

    scenes                       rendered and packed into the cache folder
    shards with a manifest       opened where they are
    shards without               described by a manifest in the cache; read where they are
    images, idx files            packed into the cache folder

Packing happens once for a source, whoever asks first; it is done in a folder beside and renamed when complete.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from orchestrator.config.models import DataConfig, RunConfig, StorageConfig
from orchestrator.config.uris import local_path
from orchestrator.data.format import (
    MANIFEST_NAME,
    Cache,
    Manifest,
    Note,
    ShardSet,
    check_losses,
    file_lock,
    parse_manifest,
)
from orchestrator.data.pack import foreign, sources
from orchestrator.data.pack.left_out import LeftOut
from orchestrator.data.pack.mixed import images_beside, is_image_folder
from orchestrator.data.pack.write import FINISHED, OtherPackingError, PackSettings, PackSource, Progress, pack
from orchestrator.errors import DataError, NotFoundError, StorageError
from orchestrator.storage import LocalStore, Store, open_store

SCENES = "scenes"
_NAME_CHARACTERS = 16
_ARCHIVES = (".zip", ".7z", ".rar", ".gz", ".bz2", ".xz", ".zst")


def prepare_data(config: RunConfig, progress: Progress | None = None) -> ShardSet:
    """The shards of a configuration's `data.source`, packed on first use; `progress` is told in lines of text.

    Raises:
        DataError: The source is missing, empty or of no kind that can be read, or samples of it are lost.
        StorageError: It cannot be reached, or the cache folder cannot be written.
    """
    data, storage = config.data, config.storage
    if data.source == SCENES:
        return _packed(scenes_source(data), scenes_name(data), data, storage, progress)
    found = locate_source(data, storage)
    if found.is_packed:
        return open_shards(data.source, data, storage)
    if found.tars:
        shards = _described(found, data, storage, progress)
        check_losses(data.source, shards.manifest.notes, allow_loss=data.allow_loss)
        return shards
    source = folder_source(found.store, data)
    return _packed(source, packed_folder_name(source), data, storage, progress)


def open_shards(uri: str, data: DataConfig, storage: StorageConfig) -> ShardSet:
    """The shard set whose manifest is at `uri`. Packed scenes that are missing on this node are packed again.

    Also removes what killed processes have left in the node's cache.

    Raises:
        DataError: No manifest there, a damaged one, or a shard larger than the cache.
    """
    store = open_store(uri, storage)
    cache = open_cache(data)
    cache.clean()
    try:
        text = store.read(MANIFEST_NAME)
    except NotFoundError as err:
        if data.source == SCENES and Path(store.uri).name == scenes_name(data):
            return _packed(scenes_source(data), scenes_name(data), data, storage, None)
        raise DataError(
            f"{store.uri}: no {MANIFEST_NAME}, so no packed shards; pack them with `orchestrator shards pack`"
        ) from err
    manifest = parse_manifest(text, f"{store.uri}/{MANIFEST_NAME}")
    base = store if manifest.base_uri is None else open_store(manifest.base_uri, storage)
    if base.local_path(MANIFEST_NAME) is None:
        largest = max(manifest.shards, key=lambda shard: shard.size_bytes)
        cache.check_fits(largest.size_bytes, f"{base.uri}/{largest.name}")
    return ShardSet(uri=store.uri, manifest=manifest, store=base, cache=cache)


def pack_dataset(
    source: str,
    uri: str,
    *,
    data: DataConfig | None = None,
    storage: StorageConfig | None = None,
    settings: PackSettings = PackSettings(),  # noqa: B008  a frozen value
    progress: Progress | None = None,
) -> Manifest:
    """Pack `scenes`, a folder of images or idx files, or existing shards (a folder, prefix or pattern) at a URI.

    Goes on after the shards that an earlier attempt has finished.

    Raises:
        DataError: The source cannot be packed, there are packed shards at `uri` already, it is being packed, or
            samples of the source are lost and `data.allow_loss` is not set.
        StorageError: Either place cannot be reached.
    """
    data = data if data is not None else DataConfig()
    storage = storage if storage is not None else StorageConfig()
    store = open_store(uri, storage)
    place = hashlib.sha256(os.fsencode(store.uri)).hexdigest()[:_NAME_CHARACTERS]
    with file_lock(open_cache(data).folder / "locks" / f"pack-{place}.lock", wait=False) as is_held:
        if not is_held:
            raise DataError(f"{store.uri}: another process is packing here; wait for it")
        found = _source_of(source, data, storage, progress)
        return pack(found, store, settings, progress=progress, notes=_notes_of(found))


def open_cache(data: DataConfig) -> Cache:
    """The node's cache folder."""
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    folder = local_path(data.cache_dir if data.cache_dir is not None else f"{home}/orchestrator")
    return Cache(folder=folder.absolute(), limit_bytes=int(data.cache_size_gb * 1e9))


def scenes_source(data: DataConfig) -> PackSource:
    """The procedural scenes, rendered on every core."""
    return sources.ScenesSource(data=data, processes=os.cpu_count() or 1)


def folder_source(store: Store, data: DataConfig) -> sources.ImageFolderSource | sources.IdxSource:
    """A local folder of images or idx files.

    Raises:
        DataError: Missing, empty, or neither; objects in a bucket that are not shards.
    """
    root_path = store.local_path("x")
    if root_path is None:
        raise DataError(
            f"{store.uri}: no {MANIFEST_NAME} and no .tar below it; check the URI, or pack a folder there with "
            "`orchestrator shards pack`"
        )
    root = root_path.parent
    if any(root.glob("*-images[-.]idx3-ubyte*")):
        return sources.IdxSource(root)
    found = sources.ImageFolderSource(root, data.folders)
    if not any(found.num_samples.values()):
        remarks = "".join(f"; {remark}" for remark in found.remarks)
        raise DataError(
            f"{root}: holds no shards (.tar), no images (.jpg, .jpeg, .png, .webp) and no idx files{remarks}; "
            "check the folder"
        )
    return found


@dataclass(frozen=True, kw_only=True)
class Located:
    """A source that is not rendered: where it is, and which tar files it has; none where it is already packed.

    None either where it is a folder of images or idx files.
    """

    store: Store
    is_packed: bool
    tars: tuple[str, ...] = ()
    beside: tuple[Note, ...] = ()
    """Shards beside these that cannot be read."""
    images_beside: tuple[LeftOut, ...] = ()


def locate_source(data: DataConfig, storage: StorageConfig) -> Located:
    """Look at `data.source` for a manifest, then for tar files, which images in class folders outweigh.

    Raises:
        DataError: No folder, or a pattern that nothing fits.
        StorageError: It cannot be reached.
    """
    folder, names = foreign.split_pattern(data.source)
    store = open_store(folder, storage)
    if names is None and store.exists(MANIFEST_NAME):
        return Located(store=store, is_packed=True)
    _check_folder(folder, store)
    if names is not None:
        return Located(store=store, is_packed=False, tars=tuple(foreign.find_tars(store, names)))
    is_local = store.local_path(MANIFEST_NAME) is not None
    keys = [info.key for info in store.list()]
    if is_local and (data.folders != "auto" or is_image_folder(keys)):
        return Located(store=store, is_packed=False)
    tars = foreign.find_tars(store, None)
    beside = foreign.listing_notes(store, tars) if tars else ()
    return Located(
        store=store, is_packed=False, tars=tuple(tars), beside=beside, images_beside=images_beside(keys)
    )


def _check_folder(folder: str, store: Store) -> None:
    """Say what stands where a folder or prefix is meant; `folder` is what the user calls it.

    Raises:
        DataError: A file or object, a link that leads nowhere, or nothing.
    """
    if store.uri.startswith("s3://"):
        from orchestrator.storage import S3Store

        assert isinstance(store, S3Store)
        parent, _, name = store.prefix.rpartition("/")
        is_file = bool(name) and replace(store, prefix=parent).exists(name)
    else:
        root = Path(store.uri)
        is_file = root.exists() and not root.is_dir()
        if os.path.lexists(Path(folder).expanduser()) and not root.exists():
            raise DataError(f"{folder}: is a link to {root}, which is not there; mend the link")
        if not root.exists():
            raise DataError(f"{root}: there is no such folder; give a folder, an s3:// prefix or `scenes`")
    if is_file:
        above, _, name = store.uri.rpartition("/")
        remedy = f"give the folder, {above or '/'}"
        if name.lower().endswith((*foreign.COMPRESSED, *_ARCHIVES)):
            remedy = "unpack it, and give the folder or the .tar"
        raise DataError(f"{store.uri}: is a file where a folder is meant; {remedy}")


def _source_of(
    source: str, data: DataConfig, storage: StorageConfig, progress: Progress | None
) -> PackSource:
    if source == SCENES:
        return scenes_source(data)
    found = locate_source(data.model_copy(update={"source": source}), storage)
    if found.is_packed:
        return sources.ShardSource(open_shards(source, data, storage))
    if not found.tars:
        return folder_source(found.store, data)
    shards = describe_source(found, data, progress)
    check_losses(source, shards.manifest.notes, allow_loss=data.allow_loss)
    return sources.ShardSource(shards)


def describe_source(found: Located, data: DataConfig, progress: Progress | None) -> ShardSet:
    """Read every tar file of a source afresh: the shard set that they make."""
    cache = open_cache(data)
    manifest = foreign.describe_tars(found.store, found.tars, cache, progress, beside=found.beside)
    return ShardSet(uri=found.store.uri, manifest=manifest, store=found.store, cache=cache)


def _notes_of(source: PackSource) -> Sequence[Note]:
    """What is known of a source beside its samples."""
    return source.shards.manifest.notes if isinstance(source, sources.ShardSource) else ()


def _packed(
    source: PackSource, name: str, data: DataConfig, storage: StorageConfig, progress: Progress | None
) -> ShardSet:
    """The packed form of a source in the cache folder."""

    def make(folder: Path) -> None:
        pack(source, LocalStore(str(folder)), progress=progress)

    return open_shards(str(_once(open_cache(data), name, make)), data, storage)


def _described(
    found: Located, data: DataConfig, storage: StorageConfig, progress: Progress | None
) -> ShardSet:
    """Foreign shards: read in place, or packed anew where a test part must be cut out of few shards."""
    cache = open_cache(data)

    def make(folder: Path) -> None:
        shards = describe_source(found, data, progress)
        manifest = shards.manifest
        check_losses(data.source, manifest.notes, allow_loss=data.allow_loss)
        if len(manifest.splits) > 1:
            LocalStore(str(folder)).write(MANIFEST_NAME, manifest.dump())
            return
        pack(sources.ShardSource(shards), LocalStore(str(folder)), progress=progress, notes=manifest.notes)

    return open_shards(str(_once(cache, described_name(found), make)), data, storage)


def described_name(found: Located) -> str:
    """Names what is made of foreign shards in the cache folder by all that decides it."""
    return foreign.described_name(found.store, found.tars, found.beside)


def _once(cache: Cache, name: str, make: Callable[[Path], None]) -> Path:
    """A folder of the cache that is made once, by whoever comes first, and appears when it is complete."""
    packed = cache.folder / "packed"
    final, temporary = packed / name, packed / f"{name}.part"
    try:
        with file_lock(cache.folder / "locks" / f"{name}.lock"):
            if (final / MANIFEST_NAME).is_file():
                return final
            shutil.rmtree(final, ignore_errors=True)
            temporary.mkdir(parents=True, exist_ok=True)  # one of a killed process is gone on with
            if not (temporary / MANIFEST_NAME).is_file() or (temporary / FINISHED).is_dir():
                _make_anew(temporary, make)
            temporary.rename(final)
            return final
    except OSError as err:
        raise StorageError(
            f"{final}: cannot be written ({err.strerror or err}); free space or choose another data.cache_dir"
        ) from err


def _make_anew(folder: Path, make: Callable[[Path], None]) -> None:
    """Make what a folder is to hold, from the beginning where something else had been begun there."""
    try:
        make(folder)
    except OtherPackingError:
        shutil.rmtree(folder)
        folder.mkdir()
        make(folder)


def scenes_name(data: DataConfig) -> str:
    """Names the packed scenes by everything that decides their bytes."""
    return f"scenes-{scenes_source(data).fingerprint[:_NAME_CHARACTERS]}"


def packed_folder_name(source: sources.ImageFolderSource | sources.IdxSource) -> str:
    """Names the packed form of a folder by what is in it."""
    return f"folder-{source.fingerprint[:_NAME_CHARACTERS]}"
