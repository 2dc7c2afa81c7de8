"""What a fit was asked for, and what its sample was made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from msem.inference import Information

Estimator = Literal["ML", "ULS"]
StandardErrors = Literal["standard", "none"]


@dataclass(frozen=True, slots=True)
class Options:
    """Settings of a fit.

    Attributes
    ----------
    estimator : {"ML", "ULS"}
    information : {"observed", "expected", "first_order"}
        What the standard errors are computed from.
    se : {"standard", "none"}
    cluster : str
        Name of the cluster variable, "" when there is none.
    given_as : str
        What the sample was given as: raw data, moments with cluster sizes, moments with N and J only.
    dropped_rows, dropped_no_cluster : int
        Rows left out because a variable, or the cluster id, was missing.
    dropped : mapping of str to int
        Rows in which each variable was missing.
    """

    estimator: Estimator = "ML"
    information: Information = "observed"
    se: StandardErrors = "standard"
    cluster: str = ""
    given_as: str = "raw data"
    dropped_rows: int = 0
    dropped_no_cluster: int = 0
    dropped: Mapping[str, int] = field(default_factory=dict)
