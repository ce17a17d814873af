from .format.manifest import LabelInfo as LabelInfo
from .format.manifest import Manifest as Manifest
from .format.manifest import ShardInfo as ShardInfo
from .format.notes import Note as Note
from .format.shardset import ShardSet as ShardSet
from .pack.prepare import open_shards as open_shards
from .pack.prepare import pack_dataset as pack_dataset
from .pack.prepare import prepare_data as prepare_data
from .pack.reencode import Reencode as Reencode
from .pack.survey import Survey as Survey
from .pack.survey import survey_source as survey_source
from .pack.verify import ShardFault as ShardFault
from .pack.verify import Verification as Verification
from .pack.verify import verify_shards as verify_shards
from .pack.verify import verify_source as verify_source
from .pack.write import PackSettings as PackSettings
from .pack.write import Progress as Progress
from .read.labelled import LabelledImages as LabelledImages
from .read.labelled import load_images as load_images
from .read.quarantine import BadSample as BadSample
from .read.quarantine import check_borne as check_borne
from .read.quarantine import count_samples as count_samples
from .read.quarantine import keep_trial_ledger as keep_trial_ledger
from .read.quarantine import read_ledger as read_ledger
from .read.quarantine import read_sweep_ledger as read_sweep_ledger
from .read.stream import Batch as Batch
from .read.stream import BatchStream as BatchStream

__all__ = [
    "BadSample",
    "Batch",
    "BatchStream",
    "LabelInfo",
    "LabelledImages",
    "Manifest",
    "Note",
    "PackSettings",
    "Progress",
    "Reencode",
    "ShardFault",
    "ShardInfo",
    "ShardSet",
    "Survey",
    "Verification",
    "check_borne",
    "count_samples",
    "keep_trial_ledger",
    "load_images",
    "open_shards",
    "pack_dataset",
    "prepare_data",
    "read_ledger",
    "read_sweep_ledger",
    "survey_source",
    "verify_shards",
    "verify_source",
]
