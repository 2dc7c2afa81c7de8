"""The first stage of ordered variables as an object that is saved, shared and fitted to: no rows are in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from msem.data.arrays import LevelArrays, unvech, vech
from msem.data.complete import SampleStatistics, level_statistics
from msem.data.first_stage import FirstStage, Statistic
from msem.data.given import Given
from msem.data.ordered import OrderedStatistics, joint_moments
from msem.data.statistics import Statistics
from msem.data.storage import Fields, Format, signed, verified, write_json
from msem.errors import DataError, ModelError
from msem.model.variables import Variables

Floats = NDArray[np.float64]

FORMAT = Format("msem ordered moments", 1, "a file of moments of ordered variables")
CONTENT = (
    "levels",
    "covariates",
    "covariate_moments",
    "categories",
    "statistics",
    "values",
    "acov",
    "counts",
)


@dataclass(frozen=True, eq=False)
class OrderedMoments(Given):
    """Thresholds, correlations and what else the first stage estimates, with their covariance matrix.

    They are all that a model by least squares needs, and hold no rows: give them to `msem.sem` in the place of data.
    Models of the same variables, or of some of them, are then fitted without estimating them again.

    Attributes
    ----------
    stage : FirstStage
        Estimates and their sampling covariance matrix.
    variables : Variables
        By level, covariates among them.
    covariates : tuple of tuple of str
        By level, those that everything is conditional on.
    moments : mapping of int to LevelArrays
        Means and covariances of the covariates by level.
    categories : mapping of str to tuple
        Labels of the categories of each ordered variable.
    sizes, counts : ndarray
        Sizes of clusters and how many there are of each; of a single level 1 and the number of rows.

    Examples
    --------
    >>> import msem
    >>> data = msem.load_demo()
    >>> data = data.assign(u1=data["y1"] > 0, u2=data["y2"] > 0, u3=data["y3"] > 0, u4=data["y4"] > 0)
    >>> fit = msem.sem("f =~ u1 + u2 + u3 + u4", data, ordered=["u1", "u2", "u3", "u4"])
    >>> again = msem.sem("f =~ u1 + u2 + u3", fit.ordered_moments)
    >>> again.df
    0
    """

    stage: FirstStage
    variables: Variables
    covariates: tuple[tuple[str, ...], ...]
    moments: Mapping[int, LevelArrays]
    categories: Mapping[str, Sequence[Any]]
    sizes: Floats
    counts: Floats

    @classmethod
    def of(cls, s: Statistics) -> Self | None:
        """Those of a sample with its rows; None if nothing was estimated of it before the model."""
        if s.first_stage is None or s.stand_in is None:
            return None
        given = set(s.first_stage.covariates)
        covariates = tuple(tuple(name for name in own if name in given) for own in s.variables.levels)
        moments = {}
        for (level, m), own in zip(sorted(s.stand_in.levels.items()), covariates, strict=True):
            at = [m.at[name] for name in own]
            moments[level] = LevelArrays(own, m.mean[at], m.cov[np.ix_(at, at)], len(own))
        return cls(s.first_stage, s.variables, covariates, moments, s.labels, s.sizes, s.counts)

    def __repr__(self) -> str:
        return (
            f"<msem.OrderedMoments: {len(self.stage.keys)} statistics of {', '.join(self.stage.names)}"
            + (f" given {', '.join(self.stage.covariates)}" if self.stage.covariates else "")
            + ">"
        )

    @property
    def known_variables(self) -> Variables:
        """Names by level."""
        return self.variables

    @property
    def known_categories(self) -> Mapping[str, Sequence[Any]]:
        """Labels of the categories of each ordered variable."""
        return self.categories

    @property
    def values(self) -> pd.Series:
        """Every estimate by its name."""
        return pd.Series([value for _, value in self.stage.items()], index=self._names, name="est")

    @property
    def acov(self) -> pd.DataFrame:
        """Their sampling covariance matrix."""
        return pd.DataFrame(self.stage.acov, index=self._names, columns=self._names)

    @property
    def _names(self) -> list[str]:
        several = len(self.variables.levels) > 1
        return [
            f"{key.lhs}{key.op}{key.rhs}" + (f".l{key.level}" if several and key.level > 1 else "")
            for key in self.stage.keys
        ]

    def statistics(
        self, variables: Variables, thresholds: Sequence[Sequence[tuple[str, str]]], place: str = ""
    ) -> OrderedStatistics:
        """The statistics of a model's variables.

        Parameters
        ----------
        variables : Variables
            Of the model, by level.
        thresholds : sequence of sequences of (str, str)
            Ordered variable and name of each threshold, by level in the order of the model.
        place : str
            Addition to messages that says which group it is.

        Raises
        ------
        DataError
            If a variable is not among these, or at other levels.
        ModelError
            If a covariate that everything is conditional on is not in the model.
        """
        self._require(variables, place)
        stage = self.stage.of(variables.names)
        joint = joint_moments(stage, variables, self.moments, self.covariates, thresholds)
        counts = level_statistics(joint.levels, variables, self.sizes, self.counts, "ordered moments")
        own = {f.name: getattr(counts, f.name) for f in fields(SampleStatistics)}
        return OrderedStatistics(**own, stage=stage, joint=joint, categories=self.categories)

    def _require(self, variables: Variables, place: str) -> None:
        if len(variables.levels) != len(self.variables.levels):
            raise ModelError(
                f"these moments{place} are of {len(self.variables.levels)} and the model of {len(variables.levels)} "
                "levels: estimate them from data for that model"
            )
        mine, theirs = self.variables.places, variables.places
        for name, where in theirs.items():
            if name not in mine:
                raise DataError(
                    f"there is no {name!r} among these moments{place}; they are of {', '.join(mine)}"
                )
            if len(variables.levels) > 1 and mine[name] != where:
                raise DataError(
                    f"{name!r} is {mine[name]} in these moments{place} and {where} in the model: estimate them from "
                    "data for that model"
                )
        absent = next((name for own in self.covariates for name in own if name not in theirs), None)
        if absent is not None:
            raise ModelError(
                f"these moments{place} are conditional on {absent!r}, which the model does not have: add it as a "
                f"covariate, as in 'y ~ 0*{absent}', or estimate moments from data without it"
            )

    def require_covariates(self, covariates: Sequence[Sequence[str]], place: str = "") -> None:
        """Refuse models with other fixed covariates."""
        for own, given in zip(covariates, self.covariates, strict=True):
            odd = next((name for name in {*own} ^ {*given}), None)
            if odd is not None:
                here, there = (
                    ("a fixed covariate", "a variable")
                    if odd in given
                    else ("a variable", "a fixed covariate")
                )
                raise ModelError(
                    f"{odd!r} is {here} of these moments{place} and {there} of the model: estimate them from data for "
                    "that model"
                )

    def save(self, path: Any) -> None:
        """Write the moments to a file, which holds no rows.

        Parameters
        ----------
        path : path
            A JSON file with a digest.
        """
        stage = self.stage
        write_json(
            path,
            signed(
                {
                    **FORMAT.header,
                    "levels": [list(own) for own in self.variables.levels],
                    "covariates": [list(own) for own in self.covariates],
                    "covariate_moments": [
                        {"mean": m.mean.tolist(), "cov": vech(m.cov).tolist()}
                        for _, m in sorted(self.moments.items())
                    ],
                    "categories": {name: list(map(_plain, own)) for name, own in self.categories.items()},
                    "statistics": [[*key[:3], str(key.level)] for key in stage.keys],
                    "values": [value for _, value in stage.items()],
                    "acov": vech(stage.acov).tolist(),
                    "counts": np.column_stack([self.sizes, self.counts]).tolist(),
                    "at_bound": [list(pair) for pair in stage.at_bound],
                    "names": list(stage.names),
                }
            ),
        )

    @classmethod
    def load(cls, path: Any) -> Self:
        """Read moments that `save` has written.

        Raises
        ------
        DataError
            If the file is something else, or damaged.
        """
        given = FORMAT.read(path)
        FORMAT.require(path, given)
        content = verified(path, given)
        try:
            return cls._of_content(content)
        except (ValueError, TypeError, KeyError) as error:
            raise FORMAT.contradiction(path, error) from error

    @classmethod
    def _of_content(cls, content: Mapping[str, Any]) -> Self:
        own = Fields(content, (*FORMAT.header, *CONTENT, "at_bound", "names"))
        levels = tuple(tuple(Fields({"x": one}, ("x",)).texts("x")) for one in content["levels"])
        covariates = tuple(tuple(Fields({"x": one}, ("x",)).texts("x")) for one in content["covariates"])
        if not 1 <= len(levels) <= 2 or len(covariates) != len(levels):
            raise ValueError("'levels' and 'covariates' are not of one or two levels")
        moments = {}
        for level, (names, one) in enumerate(zip(covariates, content["covariate_moments"], strict=True), 1):
            part, n = Fields(one, ("mean", "cov")), len(names)
            cov = unvech(part.numbers("cov", n * (n + 1) // 2), n)
            moments[level] = LevelArrays(names, part.numbers("mean", n), cov, n)
        categories = {
            name: tuple(_plain(one) for one in own) for name, own in dict(content["categories"]).items()
        }
        keys = tuple(_key(one, len(levels)) for one in content["statistics"])
        m = len(keys)
        counts = own.numbers("counts", None, 2)
        stage = FirstStage(
            keys,
            own.numbers("values", m),
            unvech(own.numbers("acov", m * (m + 1) // 2), m),
            tuple(own.texts("names")),
            tuple(name for one in covariates for name in one),
            tuple(categories),
            tuple((str(a), str(b)) for a, b in content["at_bound"]),
        )
        return cls(stage, Variables(levels), covariates, moments, categories, counts[:, 0], counts[:, 1])


def _key(given: Any, levels: int) -> Statistic:
    lhs, op, rhs, level = Fields({"x": given}, ("x",)).texts("x")
    if op not in ("|", "~1", "~", "~~") or level not in [str(k) for k in range(1, levels + 1)]:
        raise ValueError(f"there is no statistic {given}")
    return Statistic(lhs, op, rhs, int(level))


def _plain(label: Any) -> str | bool | int | float:
    """A label as JSON has it: numbers stay numbers."""
    value = label.item() if isinstance(label, np.generic) else label
    return value if isinstance(value, str | bool | int | float) else str(value)
