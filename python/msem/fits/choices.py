"""Estimator, standard errors and tests as asked for, under lavaan's names or ours, and what follows from them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, get_args

from msem.estimation.sampling import Information
from msem.fits.options import Estimator, Missing, StandardErrors, Test, require_choice

ROBUST = ("robust", "sandwich", "robust_huber_white", "robust_cluster")
TEST_ALIASES = {"mlr": "yuan_bentler_mplus"}
MISSING = {
    "listwise": "listwise",
    **dict.fromkeys(("fiml", "ml", "direct"), "fiml"),
    **dict.fromkeys(("fiml_x", "ml_x", "direct_x"), "fiml_x"),
}


class Choices(NamedTuple):
    """How a model is estimated and tested.

    Attributes
    ----------
    estimator : {"ML", "MLR", "MLF", "ULS"}
    se : {"standard", "robust", "bootstrap", "none"}
    information : {"observed", "expected", "first_order"}
    tests : tuple of {"standard", "yuan_bentler", "yuan_bentler_mplus"}
    """

    estimator: Estimator
    se: StandardErrors
    information: Information
    tests: tuple[Test, ...]


def choose(
    estimator: str,
    se: str | None,
    information: str | None,
    test: str | Sequence[str] | None,
    *,
    observed: bool,
    design_based: bool,
) -> Choices:
    """Read the options of a fit.

    Parameters
    ----------
    estimator : str
    se, information, test
        None: what goes with the estimator.
    observed : bool
        Whether standard errors that are not robust come from observed information by default.
    design_based : bool
        Whether the rows of a single-level model come in clusters: robust by default then.

    Returns
    -------
    Choices

    Raises
    ------
    ValueError
        If a name is unknown, or choices do not go together.
    """
    name = str(estimator).upper()
    require_choice("estimator", name, get_args(Estimator))
    robust = name == "MLR" or (design_based and name == "ML")
    errors, kind = _standard_errors(se, information, "robust" if robust else "standard")
    tests = _tests(test, ("yuan_bentler_mplus",) if robust else ("standard",))
    scaled = tests != ("standard",)
    if kind is None:
        kind = "first_order" if name == "MLF" else "observed" if observed or robust or scaled else "expected"
        kind = "observed" if errors == "robust" else kind
    require_choice("information", kind, get_args(Information))
    if name == "ULS" and (errors == "robust" or scaled):
        raise ValueError('robust standard errors and scaled tests are for estimator="ML" or "MLR", not "ULS"')
    if kind == "first_order" and (errors == "robust" or scaled):
        raise ValueError(
            'information="first_order" is the meat of the sandwich and cannot be its bread: use "observed" or '
            '"expected"'
        )
    return Choices(name, errors, kind, tests)  # type: ignore[arg-type]


def missing_choice(missing: str) -> Missing:
    """How missing values are handled, by our name.

    Raises
    ------
    ValueError
        If the name is unknown.
    """
    name = _plain(missing)
    require_choice("missing", name, tuple(MISSING))
    return MISSING[name]  # type: ignore[return-value]


def _plain(name: object) -> str:
    return str(name).lower().replace(".", "_")


def _standard_errors(
    se: str | None, information: str | None, default: StandardErrors
) -> tuple[StandardErrors, str | None]:
    kind = None if information is None else _plain(information)
    if se is None:
        return default, kind
    name = _plain(se)
    if name in get_args(Information):  # lavaan's short form
        return "standard", name
    if name in ROBUST:
        return "robust", kind
    require_choice("se", name, get_args(StandardErrors))
    return name, kind  # type: ignore[return-value]


def _tests(test: str | Sequence[str] | None, default: tuple[Test, ...]) -> tuple[Test, ...]:
    """Tests asked for, each once; the likelihood ratio, of which the others are scalings, always first."""
    given = default if test is None else (test,) if isinstance(test, str) else tuple(test)
    names = [TEST_ALIASES.get(_plain(each), _plain(each)) for each in given]
    for name in names:
        require_choice("test", name, get_args(Test))
    return tuple(dict.fromkeys(("standard", *names)))  # type: ignore[arg-type]
