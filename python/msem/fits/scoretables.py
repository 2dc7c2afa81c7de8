"""Tables of score tests and modification indices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from msem.distributions import chisq_pvalue, chisq_quantile, normal_pvalue, normal_rejection
from msem.estimation.estimate import Estimate
from msem.model.partable import Parameter
from msem.output.tables import row_columns
from msem.postestimation.candidates import Candidate
from msem.postestimation.modification import Extension, standardized_changes
from msem.postestimation.score_tests import Joint, Single

Floats = NDArray[np.float64]

HIGH_POWER = 0.75


@dataclass(frozen=True, eq=False)
class ScoreTest:
    """Score (Lagrange multiplier) tests of restrictions of a fit.

    All tables have columns statistic, df and pvalue; under MLR also robust and pvalue_robust, the generalized score
    statistic.

    Attributes
    ----------
    total : DataFrame
        All restrictions released at once.
    univariate : DataFrame
        Each restriction released on its own; column epc is the expected change of an added parameter, and for an
        equality constraint the expected value of its left less its right side.
    cumulative : DataFrame
        Released one after the other, the largest univariate statistic first.
    epc : DataFrame
        Expected change of every parameter if all restrictions were released: columns lhs, op, rhs, level, group,
        label, est, epc, epv; epv is the expected new value.
    """

    total: pd.DataFrame
    univariate: pd.DataFrame
    cumulative: pd.DataFrame
    epc: pd.DataFrame

    def _parts(self) -> dict[str, pd.DataFrame]:
        return {"Total": self.total, "Univariate": self.univariate, "Cumulative": self.cumulative}

    def __repr__(self) -> str:
        return "\n\n".join(f"{title}\n{table.round(3).to_string()}" for title, table in self._parts().items())

    def _repr_html_(self) -> str:
        return "".join(f"<p>{title}</p>{table.round(3).to_html()}" for title, table in self._parts().items())


def score_test(extension: Extension, names: Sequence[str]) -> ScoreTest:
    """Test the further parameters of an extended model.

    Parameters
    ----------
    extension : Extension
    names : sequence of str
        What each of them stands for.

    Returns
    -------
    ScoreTest
    """
    point = extension.point
    single = point.single(extension.further)
    order = [int(k) for k in np.argsort(-np.nan_to_num(single.statistic), kind="stable")]
    steps = [point.joint(extension.together(order[: k + 1])) for k in range(len(order))]
    joint = steps[-1]
    return ScoreTest(
        _joint_table([joint], ["total"], point.scores is not None),
        _single_table(single, names, point.scores is not None),
        _joint_table(steps, [names[k] for k in order], point.scores is not None),
        _changes(extension, joint.change),
    )


def _single_table(single: Single, names: Sequence[str], robust: bool) -> pd.DataFrame:
    table = pd.DataFrame(
        {
            "statistic": single.statistic,
            "df": np.where(np.isnan(single.statistic), 0, 1),
            "pvalue": pvalues(single.statistic),
            "epc": single.change,
        },
        index=list(names),
    )
    if robust:
        table = table.assign(robust=single.robust, pvalue_robust=pvalues(single.robust))
    return table


def _joint_table(tests: Sequence[Joint], names: Sequence[str], robust: bool) -> pd.DataFrame:
    table = pd.DataFrame(
        {
            "statistic": [test.statistic for test in tests],
            "df": [test.df for test in tests],
            "pvalue": [chisq_pvalue(test.statistic, test.df) for test in tests],
        },
        index=list(names),
    )
    if robust:
        table = table.assign(
            robust=[test.robust for test in tests],
            pvalue_robust=[chisq_pvalue(test.robust, test.df) for test in tests],
        )
    return table


def pvalues(statistic: Floats) -> Floats:
    """Upper tail of chi-squares on one degree of freedom."""
    return normal_pvalue(np.sqrt(statistic))


def _changes(extension: Extension, change: Floats) -> pd.DataFrame:
    rows = [row for row in extension.table.rows if row.free]
    at = [row.free - 1 for row in rows]
    est, epc = extension.theta[at], change[at]
    return key_frame(rows).assign(label=[row.label for row in rows], est=est, epc=epc, epv=est + epc)


def key_frame(rows: Sequence[Parameter]) -> pd.DataFrame:
    """Columns that name parameters: lhs, op, rhs, level, group."""
    return pd.DataFrame(row_columns(rows, ("lhs", "op", "rhs", "level", "group")))


def modification_table(
    fit: Estimate, added: Sequence[Candidate], single: Single, robust: bool
) -> pd.DataFrame:
    """Modification indices of the candidates that are identified.

    Parameters
    ----------
    fit : Estimate
    added : sequence of Candidate
    single : Single
        Their tests.
    robust : bool
        Whether to add the generalized score statistics, and take the p-values from them.

    Returns
    -------
    DataFrame
        Columns lhs, op, rhs, level, group, mi, mi_robust (if asked for), pvalue, epc, sepc_lv, sepc_all, sepc_nox.
    """
    table = key_frame([c.row for c in added]).assign(mi=single.statistic)
    if robust:
        table["mi_robust"] = single.robust
    table["pvalue"] = pvalues(single.robust if robust else single.statistic)
    standardized = standardized_changes(fit, added, np.nan_to_num(single.change))
    table = table.assign(
        epc=single.change,
        sepc_lv=standardized.std_lv,
        sepc_all=standardized.std_all,
        sepc_nox=standardized.std_nox,
    )
    return table[table["mi"].notna()].reset_index(drop=True)


def with_power(table: pd.DataFrame, delta: float, alpha: float) -> pd.DataFrame:
    """Judge every index by the power that it had to detect a change of `delta` (Saris, Satorra & van der Veld, 2009).

    Parameters
    ----------
    table : DataFrame
        As `modification_table` gives it.
    delta : float
        Change of a parameter, in the metric of `epc`, that would matter.
    alpha : float
        Level of the test.

    Returns
    -------
    DataFrame
        With the further columns delta, ncp, power and decision. The decision is "misspecified" or "not misspecified"
        if a significant index had low power, or an insignificant one high power; with both the expected change
        decides, and with neither it is "inconclusive".
    """
    statistic = table["mi_robust" if "mi_robust" in table else "mi"]
    # epc^2 / statistic is the sampling variance of the change
    ncp = statistic / table["epc"] ** 2 * delta**2
    power = normal_rejection(np.sqrt(ncp.to_numpy()), alpha)
    significant, strong = statistic > chisq_quantile(alpha, 1), power > HIGH_POWER
    wrong = significant & (~strong | (table["epc"].abs() > delta))
    decision = np.where(wrong, "misspecified", np.where(strong, "not misspecified", "inconclusive"))
    return table.assign(delta=delta, ncp=ncp, power=power, decision=decision)
