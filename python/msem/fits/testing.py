"""Tests of hypotheses about a fit, and what it would gain from further parameters."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import pandas as pd

from msem.data.statistics import Clusters
from msem.errors import ModelError
from msem.estimation.estimate import require_maximum
from msem.fits.scoretables import ScoreTest, modification_table, score_test, with_power
from msem.fits.solution import Solution
from msem.model.levels import Level, level_number
from msem.model.references import Names
from msem.postestimation.candidates import added_parameters, candidates
from msem.postestimation.modification import extend, modify
from msem.postestimation.restrictions import choose, restrictions
from msem.settings import require_choice

OPERATORS = ("=~", "~", "~~", "~1")


class Testing(Solution):
    """Score tests and modification indices of a fit by maximum likelihood."""

    def score_test(
        self,
        release: Sequence[int | str] | int | str | None = None,
        *,
        add: str | None = None,
        level: Level | None = None,
        group: int | None = None,
    ) -> ScoreTest:
        """Test whether restrictions should be released, without fitting the model again.

        Parameters
        ----------
        release : int, str or sequence of them, optional
            Equality constraints: their numbers from 1, in the order of ``score_test().univariate``; a label that rows
            share; or the constraint as text, such as ``"fw=~y2 == fb=~y2.l2"``. Default: all.
        add : str, optional
            Parameters to be freed in place of that, as in a model text: ``"y1 ~~ y2"``.
        level : {1, 2, "within", "between"}, optional
            Level of the parameters of `add`, where both levels have their variables.
        group : int, optional
            Group of the parameters of `add`, counted from 1. Default: all groups.

        Returns
        -------
        ScoreTest
            Tests of all at once, one by one and cumulatively, and the expected changes of all parameters (Rao, 1948).
            They use expected information. Under MLR the generalized score statistic, which stays a chi-square when
            the data are not normal (Boos, 1992), is given beside them.

        Raises
        ------
        ModelError
            If there is nothing of that name to release or to add, or the fit has not converged.
        UnsupportedError
            For least squares.
        """
        require_maximum(self.estimate, "score tests")
        if add is not None and release is not None:
            raise ValueError("give either release= or add=, not both")
        if add is not None:
            groups = self._groups_asked(group)
            added = added_parameters(self.table, add, self._level_asked(level), groups)
            names = Names((*self.table.rows, *(c.row for c in added if c.index is None))).own
            new = iter(names[len(self.table.rows) :])
            called = [next(new) if c.index is None else names[c.index] for c in added]
            return score_test(extend(self.estimate, (), added, self._robust_clusters()), called)
        released = choose(restrictions(self.estimate), release)
        return score_test(
            extend(self.estimate, released, (), self._robust_clusters()), [e.text for e in released]
        )

    def modification_indices(
        self,
        *,
        minimum: float = 0.0,
        sort: bool = True,
        op: str | Collection[str] | None = None,
        level: Level | None = None,
        power: bool = False,
        delta: float = 0.1,
        alpha: float = 0.05,
    ) -> pd.DataFrame:
        """Score test of every parameter that could be freed, and the value it would have.

        Parameters
        ----------
        minimum : float
            Leave out rows with a smaller index.
        sort : bool
            Largest index first; otherwise by group, level and kind.
        op : str or collection of str, optional
            Only these operators, of ``=~ ~ ~~ ~1``.
        level : {1, 2, "within", "between"}, optional
            Only this level.
        power : bool
            Add the power of each test against a change of `delta`, and what follows from both (Saris, Satorra & van
            der Veld, 2009).
        delta : float
            Change that would matter, in the metric of `epc`.
        alpha : float
            Level of the tests.

        Returns
        -------
        DataFrame
            Columns lhs, op, rhs, level, group, mi, pvalue, epc, sepc_lv, sepc_all, sepc_nox; under MLR also
            mi_robust, the generalized score statistic, from which the p-value then is; with `power` also delta, ncp,
            power and decision. mi is the expected drop in chi-square (Sörbom, 1989), epc the expected value less the
            value at which the parameter is fixed, sepc_* the same in standard deviations. Rows that are not
            identified, and moments of fixed covariates, are left out.

        Raises
        ------
        ModelError
            If the fit has not converged.
        UnsupportedError
            For least squares.
        """
        require_maximum(self.estimate, "modification indices")
        kinds = OPERATORS if op is None else (op,) if isinstance(op, str) else tuple(op)
        for kind in kinds:
            require_choice("op", kind, OPERATORS)
        number = self._level_asked(level)
        added = [c for c in candidates(self.table) if c.row.op in kinds and number in (None, c.row.level)]
        clusters = self._robust_clusters()
        table = modification_table(
            self.estimate, added, modify(self.estimate, added, clusters), clusters is not None
        )
        if power:
            if not 0 < alpha < 1 or not delta > 0:
                raise ValueError(
                    f"delta must be positive and alpha between 0 and 1, not {delta!r} and {alpha!r}"
                )
            table = with_power(table, delta, alpha)
        table = table[table["mi"] >= minimum]
        if sort:  # indices that are equal but for rounding stay in the order of the model
            table = table.sort_values("mi", ascending=False, kind="stable", key=lambda mi: mi.round(9))
        return table.reset_index(drop=True)

    def _robust_clusters(self) -> tuple[Clusters, ...] | None:
        """Statistics of the clusters if standard errors or tests are robust."""
        return self.sample.clusters if self.options.robust else None

    def _level_asked(self, level: Level | None) -> int | None:
        return None if level is None else level_number(level, self.table.nlevels)

    def _groups_asked(self, group: int | None) -> Sequence[int]:
        known = range(1, self.table.ngroups + 1)
        if group is not None and group not in known:
            raise ModelError(f"there is no group {group}: they are numbered from 1 to {len(known)}")
        return known if group is None else (group,)
