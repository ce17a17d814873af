from .connect import Cluster as Cluster
from .connect import local_cluster as local_cluster
from .connect import plan_room as plan_room
from .connect import ray_cluster as ray_cluster
from .connect import trial_resources as trial_resources
from .local import ignored_address as ignored_address
from .local import ray_folder_warnings as ray_folder_warnings
from .token import Token as Token
from .token import default_token_path as default_token_path
from .token import find_token as find_token

__all__ = [
    "Cluster",
    "Token",
    "default_token_path",
    "find_token",
    "ignored_address",
    "local_cluster",
    "plan_room",
    "ray_cluster",
    "ray_folder_warnings",
    "trial_resources",
]
