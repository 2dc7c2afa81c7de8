"""The first stage of a fit of ordered variables, to be saved, shared and fitted to."""

from __future__ import annotations

from msem.data.ordered_moments import OrderedMoments
from msem.estimation.solution import Solution


def ordered_moments(fit: Solution) -> OrderedMoments | dict[str, OrderedMoments]:
    """Thresholds, correlations and what else was estimated of ordered variables before the model.

    `msem.sem` takes them in the place of data, for this model and for others of the same variables; `save` writes them
    to a file without rows. Of several groups a dict from label to moments.

    Returns
    -------
    OrderedMoments or dict

    Raises
    ------
    AttributeError
        If no variable is ordered, or the fit is by maximum likelihood.
    """
    found = {}
    for group in fit.sample.groups:
        if group.statistics.integral is not None:
            raise AttributeError("ordered variables by maximum likelihood have no moments of a first stage")
        moments = OrderedMoments.of(group.statistics)
        if moments is None:
            raise AttributeError("no variable of the model is ordered: its moments are in fit.saturated")
        found[group.label] = moments
    return found if len(found) > 1 else next(iter(found.values()))
