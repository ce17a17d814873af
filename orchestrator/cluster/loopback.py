"""A local Ray that listens on 127.0.0.1 alone.

On Linux, Ray replaces 127.0.0.1 by the machine's outward address and opens a dozen ports on every interface. The switch
that it has for Windows and macOS keeps everything on loopback; it is read from a module constant, which is set here for
the length of `ray.init`, and from the environment by the processes that Ray starts.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from ray._private import ray_constants

_VARIABLE = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"


@contextmanager
def loopback_only() -> Iterator[None]:
    """Make `ray.init` start its processes on the loopback address."""
    constant, variable = ray_constants.ENABLE_RAY_CLUSTER, os.environ.get(_VARIABLE)
    ray_constants.ENABLE_RAY_CLUSTER, os.environ[_VARIABLE] = False, "0"
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = constant
        if variable is None:
            del os.environ[_VARIABLE]
        else:
            os.environ[_VARIABLE] = variable
