"""Captioned pictures: random access to examples, and batches of them in a global order."""

from flowbrush.data.array_record import ArrayRecordConfig
from flowbrush.data.cifar import CifarConfig
from flowbrush.data.emoji import EmojiConfig
from flowbrush.data.emoji_groups import EmojiGroupsConfig
from flowbrush.data.emoji_variants import EmojiVariantsConfig
from flowbrush.data.folders import FolderConfig
from flowbrush.data.hub_dataset import HubDatasetConfig
from flowbrush.data.idx import IdxConfig
from flowbrush.data.mixture import MixtureConfig
from flowbrush.data.parquet import ParquetConfig
from flowbrush.data.prepared import PreparedConfig
from flowbrush.data.shapes_world import ShapesWorldConfig
from flowbrush.data.tar_shards import TarShardsConfig

SourceConfig = (
    EmojiConfig
    | EmojiVariantsConfig
    | EmojiGroupsConfig
    | ShapesWorldConfig
    | FolderConfig
    | IdxConfig
    | PreparedConfig
    | ParquetConfig
    | ArrayRecordConfig
    | CifarConfig
    | HubDatasetConfig
    | TarShardsConfig
    | MixtureConfig
)
