"""The compiled core, in the build that suits the processor.

An installation from source has the build for the processor it was made on; wheels have one for any processor and, on
x86-64, one for processors with AVX2. Set the environment variable ``MSEM_CORE=baseline`` to use the first of these.
"""

import os

try:
    from numpy._core._multiarray_umath import __cpu_features__ as _features
except ImportError:  # another layout of numpy
    _features = {}


def _suitable() -> bool:
    return bool(_features.get("AVX2") and _features.get("FMA3")) and os.environ.get("MSEM_CORE") != "baseline"


def _explain(error: ImportError) -> ImportError:
    return ImportError(
        "msem was compiled for processors with AVX2 only, which this one lacks or MSEM_CORE=baseline forbids: "
        "pip install . --config-settings=cmake.define.MSEM_BUILDS=all makes all builds",
        name=error.name,
    )


if _suitable():
    try:
        from msem._core_avx2 import *  # noqa: F403
    except ImportError:  # not built on this platform
        from msem._core_baseline import *  # noqa: F403
else:
    try:
        from msem._core_baseline import *  # noqa: F403
    except ImportError as error:
        raise _explain(error) from error
