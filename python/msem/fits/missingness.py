"""What missing values cost a fit, and which rows and clusters had no part in it."""

from __future__ import annotations

import numpy as np
import pandas as pd

from msem.estimation.estimate import require_likelihood
from msem.fits.solution import Solution
from msem.postestimation.missing_information import missing_information
from msem.settings import Information


class Missingness(Solution):
    """Missing information, and what was left out."""

    def fmi(self) -> pd.Series:
        """Fraction of missing information of every parameter: 1 less complete-data variance over variance.

        The complete-data variance is what the same rows without holes would give at these estimates. 0 for a parameter
        that the holes do not concern; sampling error can make it slightly negative.

        Returns
        -------
        Series
            Indexed as `params`; nan for parameters without a standard error.

        Raises
        ------
        DataError
            Without raw data.
        UnsupportedError
            For least squares.

        References
        ----------
        Savalei & Rhemtulla (2012). Structural Equation Modeling, 19, 477-494.
        """
        require_likelihood(self.estimate, "fractions of missing information")
        kind: Information = "expected" if self.options.information == "expected" else "observed"
        found = missing_information(self.estimate, self.sample, kind)
        return pd.Series(found, index=list(self.table.names()), name="fmi")

    def left_out(self) -> pd.DataFrame:
        """Rows of the data that had no part in the fit, or only through the cluster variables of their cluster.

        Returns
        -------
        DataFrame
            Columns row (its label in the data) and reason; in order of the data.

        Raises
        ------
        DataError
            Without raw data.
        """
        parts = [self._left_out(number) for number in range(len(self.sample.groups))]
        frame = pd.concat(parts).sort_index(kind="stable")
        index = self.sample.groups[0].rows.index
        return pd.DataFrame({"row": index[frame.index], "reason": frame.to_numpy()})

    def _left_out(self, number: int) -> pd.Series:
        group = self.sample.groups[number]
        rows, s = group.rows, group.statistics
        reasons = [pd.Series(reason, index=where) for reason, where in rows.left_out.items()]
        if not s.complete and s.unit:
            empty = np.logical_and.reduce([np.isnan(rows.columns[name]) for name in s.unit])
            at = np.arange(len(empty)) if rows.rows is None else rows.rows
            reasons.append(pd.Series("no unit-level value; cluster variables used", index=at[empty]))
        return pd.concat(reasons) if reasons else pd.Series([], dtype=object, index=pd.Index([], dtype=int))
