"""What a user may give in the place of rows, by what readers of data ask of it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Self

import pandas as pd

from msem.model.variables import Variables


class Given:
    """Moments or statistics in the place of rows; each kind says what it knows of them, by default nothing."""

    @property
    def has_rows(self) -> bool:
        """Whether these are rows."""
        return False

    @property
    def keeps_products(self) -> bool:
        """Whether products within every single cluster are known, or follow from rows."""
        return False

    @property
    def expectations(self) -> bool:
        """Whether the sample is made of expectations under moments, which have no observed information."""
        return False

    @property
    def moments_of_levels(self) -> Any:
        """The `LevelMoments` that these are; None where they are something else."""
        return None

    @property
    def known_variables(self) -> Variables | None:
        """Names by level, where they are known."""
        return None

    @property
    def kind(self) -> Hashable:
        """All that reading them depends on beside numbers; None where they are not that simple."""
        return None

    @property
    def known_categories(self) -> Mapping[str, Sequence[Any]]:
        """Labels of the categories of ordered variables."""
        return {}

    @property
    def known_options(self) -> Mapping[str, Any]:
        """Options of `sem` that count as if they had been given with the rows these were made of."""
        return {}

    def univariate(self) -> pd.DataFrame | None:
        """n, missing, mean and sd of every variable over the units that it is measured on, where they are known."""
        return None

    def scaled_with(self, others: Sequence[Self], nlevels: int) -> Sequence[Self]:
        """These and other groups of a sample with weights as they enter the likelihood."""
        return (self, *others)


class GivenRows(Given):
    """Rows, such as those of a data frame, of which everything else is to be read."""

    @property
    def has_rows(self) -> bool:
        """Whether these are rows."""
        return True

    @property
    def keeps_products(self) -> bool:
        """Products within clusters follow from rows."""
        return True


ROWS = GivenRows()


def what_is_given(data: Any) -> Given:
    """What data know of themselves."""
    return data if isinstance(data, Given) else ROWS


def each_given(data: Any) -> list[Given]:
    """What data know of themselves, or those of each group."""
    parts = data.values() if isinstance(data, Mapping) else (data,)
    return [what_is_given(one) for one in parts]
