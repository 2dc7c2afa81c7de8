"""Multilevel structural equation modelling.

>>> import msem
>>> data = msem.load_demo()
>>> fit = msem.sem('''
... level: 1
...   fw =~ y1 + y2 + y3
... level: 2
...   fb =~ y1 + y2 + y3
... ''', data, cluster="cluster")
>>> fit.status
'ok'
"""

from msem.api import cfa, growth, sem
from msem.compare import compare
from msem.demo import load_demo
from msem.fit import Fit
from msem.levelfit import SegregatedFit
from msem.levelwise import saturated, segregated
from msem.moments import LevelMoments
from msem.version import __version__

__all__ = [
    "Fit",
    "LevelMoments",
    "SegregatedFit",
    "__version__",
    "cfa",
    "compare",
    "growth",
    "load_demo",
    "saturated",
    "segregated",
    "sem",
]
