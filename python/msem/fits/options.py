"""What a fit was asked for, and what its sample was made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from msem.estimation.sampling import Information
from msem.postestimation.delta import MonteCarlo
from msem.postestimation.scaling import ScaledTest

Estimator = Literal["ML", "MLR", "MLF", "ULS"]
StandardErrors = Literal["standard", "robust", "bootstrap", "none"]
Test = Literal["standard", "yuan_bentler", "yuan_bentler_mplus"]
Missing = Literal["listwise", "fiml", "fiml_x"]
Reference = Literal["normal", "t"]
Intervals = Literal["delta", "monte_carlo"]

FLAGS = ("fixed_x", "std_lv", "orthogonal", "sample_cov_rescale")


@dataclass(frozen=True, slots=True)
class Options:
    """Settings of a fit.

    Attributes
    ----------
    estimator : {"ML", "MLR", "MLF", "ULS"}
    information : {"observed", "expected", "first_order"}
        What the standard errors are computed from: the bread of robust ones.
    se : {"standard", "robust", "bootstrap", "none"}
    tests : tuple of {"standard", "yuan_bentler", "yuan_bentler_mplus"}
        The likelihood-ratio test and the scaled ones that were asked for.
    cluster : str
        Name of the cluster variable, "" when there is none.
    group : str
        Name of the column with the groups, "" when there is none.
    given_as : str
        What the sample was given as: raw data, moments with cluster sizes, moments with N and J only.
    missing : {"listwise", "fiml", "fiml_x"}
        How missing values were handled.
    dropped_rows, dropped_no_cluster, dropped_no_group : int
        Rows left out because a variable, the cluster id, or the group was missing.
    dropped_empty : int
        Rows left out because nothing was observed in them, where rows with missing values are kept.
    dropped : mapping of str to int
        Rows in which each variable was missing.
    """

    estimator: Estimator = "ML"
    information: Information = "observed"
    se: StandardErrors = "standard"
    tests: tuple[Test, ...] = ("standard",)
    cluster: str = ""
    group: str = ""
    given_as: str = "raw data"
    missing: Missing = "listwise"
    dropped_rows: int = 0
    dropped_empty: int = 0
    dropped_no_cluster: int = 0
    dropped_no_group: int = 0
    dropped: Mapping[str, int] = field(default_factory=dict)

    @property
    def scaled_test(self) -> ScaledTest | None:
        """The first scaled test, which scaled fit measures come from."""
        return next((test for test in self.tests if test != "standard"), None)

    @property
    def robust(self) -> bool:
        """Whether inference rests on independent clusters instead of normal variables."""
        return self.se == "robust" or self.scaled_test is not None


def require_settings(given: Mapping[str, Any]) -> None:
    """Refuse settings of the wrong kind.

    Raises
    ------
    ValueError
        Naming the setting, what it must be and what it is.
    """
    for name in FLAGS:
        if not isinstance(given.get(name, True), bool):
            raise ValueError(f"{name} must be True or False, not {given[name]!r}")
    for name in ("cluster", "group"):
        if not isinstance(given.get(name, ""), str | None):
            raise ValueError(f"{name} must be the name of a column, not {given[name]!r}")
    useless = [name for name in ("bootstrap", "seed") if given.get(name) is not None]
    if useless and str(given.get("se")).lower() != "bootstrap":
        raise ValueError(f'{useless[0]}= has no effect without se="bootstrap": leave it out')
    most, tolerance = given.get("max_iterations", 1), given.get("tolerance", 1.0)
    if not isinstance(most, int) or isinstance(most, bool) or most < 1:
        raise ValueError(f"max_iterations must be a positive whole number, not {most!r}")
    if not isinstance(tolerance, float) or not 0 < tolerance <= 1:
        raise ValueError(f"tolerance must be a positive number up to 1, such as 1e-12, not {tolerance!r}")


def require_choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    """Refuse a value that is not among those allowed."""
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}, not {value!r}")


def monte_carlo(method: Intervals, draws: int, seed: int) -> MonteCarlo | None:
    """How to draw for Monte Carlo intervals; None for those of the delta method."""
    require_choice("method", method, get_args(Intervals))
    return MonteCarlo(draws, seed) if method == "monte_carlo" else None
