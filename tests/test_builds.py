"""The kernels for different processors are one program behind one module."""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from msem import _core

SCRIPT = """
import json, msem
from msem import _core
fit = msem.sem("level: 1\\n f =~ y1 + y2 + y3\\nlevel: 2\\n g =~ y1 + y2 + y3\\n g ~ w1", msem.load_demo(),
               cluster="cluster")
print(json.dumps([_core.avx2, _core.Block.__module__, fit.llf, fit.chisq, *fit.params, *fit.bse]))
"""
FOR_AVX2 = Path(_core.__file__).parent / "glibc-hwcaps" / "x86-64-v3" / "libmsemcore.so"


def start(*, plain: bool) -> subprocess.CompletedProcess[str]:
    """Fit in a process of its own, on a processor that is `plain` or taken for one by the loader."""
    environment = os.environ | ({"GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX2"} if plain else {})
    return subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=False
    )


def run(*, plain: bool) -> list:
    done = start(plain=plain)
    assert not done.returncode, done.stderr
    return json.loads(done.stdout)


@pytest.mark.skipif(not FOR_AVX2.exists(), reason="MSEM_BUILDS=all makes kernels for both processors")
def test_kernels_agree() -> None:
    plain, best = run(plain=True), run(plain=False)
    assert not plain[0]
    assert best[0] == _core.avx2
    assert plain[1] == best[1] == "msem._core"
    np.testing.assert_allclose(plain[2:], best[2:], rtol=1e-7)


@pytest.mark.skipif(
    FOR_AVX2.exists() or not _core.avx2 or platform.libc_ver()[0] != "glibc",
    reason="there are kernels for any processor, or no loader that takes this one for a lesser one",
)
def test_missing_kernels_are_explained() -> None:
    done = start(plain=True)
    assert done.returncode
    assert "MSEM_BUILDS=all" in done.stderr.splitlines()[-1]


def test_the_core_is_complete() -> None:
    assert {"Objective", "minimize", "fit_saturated", "two_level_statistics"} <= set(vars(_core))
    with pytest.raises(ValueError, match="slot must be 0, 1 or 2"):
        _core.Block(1, 1, [5], [0], [0], [0], [0.0])
