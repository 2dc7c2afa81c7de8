"""The compiled core, in the build that suits the processor.

Set the environment variable ``MSEM_CORE=baseline`` to use the build for any processor.
"""

import os

try:
    from numpy._core._multiarray_umath import __cpu_features__ as _features
except ImportError:  # another layout of numpy
    _features = {}


def _suitable() -> bool:
    return bool(_features.get("AVX2") and _features.get("FMA3")) and os.environ.get("MSEM_CORE") != "baseline"


if _suitable():
    try:
        from msem._core_avx2 import *  # noqa: F403
    except ImportError:  # not built on this platform
        from msem._core_baseline import *  # noqa: F403
else:
    from msem._core_baseline import *  # noqa: F403
