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

from importlib.metadata import PackageNotFoundError, version

from msem.api import cfa, growth, sem
from msem.demo import load_demo
from msem.fit import Fit
from msem.moments import LevelMoments

try:
    __version__ = version("msem")
except PackageNotFoundError:  # a source tree that is not installed
    __version__ = "0.0.0"

__all__ = ["Fit", "LevelMoments", "cfa", "growth", "load_demo", "sem"]
