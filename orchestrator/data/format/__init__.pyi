from . import jpeg as jpeg
from .cache import Cache as Cache
from .cache import file_lock as file_lock
from .cache import hash_descriptor as hash_descriptor
from .index import IMAGE_EXTENSIONS as IMAGE_EXTENSIONS
from .index import JPEG_ALIASES as JPEG_ALIASES
from .index import build_index as build_index
from .index import image_extension as image_extension
from .jpeg import Box as Box
from .jpeg import Encoded as Encoded
from .jpeg import Pixels as Pixels
from .labels import CLASS as CLASS
from .labels import LabelCount as LabelCount
from .manifest import MANIFEST_NAME as MANIFEST_NAME
from .manifest import DamagedShardError as DamagedShardError
from .manifest import LabelInfo as LabelInfo
from .manifest import Manifest as Manifest
from .manifest import ShardInfo as ShardInfo
from .manifest import parse_manifest as parse_manifest
from .notes import Note as Note
from .notes import NoteCounter as NoteCounter
from .notes import check_losses as check_losses
from .shardset import BAD_IMAGES as BAD_IMAGES
from .shardset import OpenShard as OpenShard
from .shardset import SampleReader as SampleReader
from .shardset import ShardSet as ShardSet

__all__ = [
    "BAD_IMAGES",
    "CLASS",
    "IMAGE_EXTENSIONS",
    "JPEG_ALIASES",
    "MANIFEST_NAME",
    "Box",
    "Cache",
    "DamagedShardError",
    "Encoded",
    "LabelCount",
    "LabelInfo",
    "Manifest",
    "Note",
    "NoteCounter",
    "OpenShard",
    "Pixels",
    "SampleReader",
    "ShardInfo",
    "ShardSet",
    "build_index",
    "check_losses",
    "file_lock",
    "hash_descriptor",
    "image_extension",
    "jpeg",
    "parse_manifest",
]
