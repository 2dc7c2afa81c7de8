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

from typing import TYPE_CHECKING, NoReturn

from msem import plots
from msem.data.clusters import ClusterStatistics
from msem.data.demo import load_demo
from msem.data.files import read_data
from msem.data.moments import LevelMoments
from msem.data.ordered_moments import OrderedMoments
from msem.data.patterns import MissingPatterns, missing_patterns
from msem.data.printed import covariance
from msem.data.streams import summarize
from msem.fits.compiled import CompiledModel, compile
from msem.fits.decomposition import saturated, segregated
from msem.fits.description import Description, describe
from msem.fits.drawing import diagram
from msem.fits.exploratory import ExploratoryFits, efa
from msem.fits.fit import Fit
from msem.fits.invariance import Invariance, invariance
from msem.fits.manyfits import ManyFits
from msem.fits.model_comparison import compare_models
from msem.fits.pooling import Pooled, PooledTest, pool
from msem.fits.power import Power, power
from msem.fits.publication import PublicationTable, table
from msem.fits.sam import StepwiseFit, sam
from msem.fits.saved import SavedFit
from msem.fits.segregated import SegregatedFit
from msem.fits.sem import cfa, growth, sem
from msem.fits.simulate import simulate
from msem.fits.synopsis import compare
from msem.names import unknown_name
from msem.simulation.shapes import MultivariateT, NonNormal
from msem.version import __version__

__all__ = [
    "ClusterStatistics",
    "CompiledModel",
    "Description",
    "ExploratoryFits",
    "Fit",
    "Invariance",
    "LevelMoments",
    "ManyFits",
    "MissingPatterns",
    "MultivariateT",
    "NonNormal",
    "OrderedMoments",
    "Pooled",
    "PooledTest",
    "Power",
    "PublicationTable",
    "SavedFit",
    "SegregatedFit",
    "StepwiseFit",
    "__version__",
    "cfa",
    "compare",
    "compare_models",
    "compile",
    "covariance",
    "describe",
    "diagram",
    "efa",
    "growth",
    "invariance",
    "load_demo",
    "missing_patterns",
    "plots",
    "pool",
    "power",
    "read_data",
    "sam",
    "saturated",
    "segregated",
    "sem",
    "simulate",
    "summarize",
    "table",
]


def __dir__() -> list[str]:
    """Names that are completed: the public ones."""
    return list(__all__)


if not TYPE_CHECKING:

    def __getattr__(name: str) -> NoReturn:
        """Say what names of other programs are called here."""
        if name.startswith("_"):
            raise AttributeError(f"module 'msem' has no attribute {name!r}")
        raise AttributeError(unknown_name("msem", name, __all__, of_fits=dir(Fit)))
