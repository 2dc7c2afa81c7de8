"""What a user asks for: the options of a fit, and numbers such as draws, seeds and threads."""

from __future__ import annotations

import operator
import secrets
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, get_args

from msem import _core
from msem.errors import ArgumentError, MsemError, UnsupportedError
from msem.model.rotation import GEOMIN, Rotation, rotation_arguments, rotation_of
from msem.names import unknown_option, why_not

Weighting = Literal["ULS", "DWLS", "WLS", "GLS"]
LeastSquares = Literal["ULS", "ULSM", "ULSMV", "ULSMVS", "DWLS", "WLSM", "WLSMV", "WLSMVS", "WLS", "GLS"]
Estimator = Literal["ML", "MLR", "MLF"] | LeastSquares
Information = Literal["observed", "expected", "first_order"]
StandardErrors = Literal["standard", "robust", "jackknife1", "replicate", "bootstrap", "none"]
ScaledTest = Literal["yuan_bentler", "yuan_bentler_mplus"]
CorrectedTest = Literal["bartlett", "swain", "yuan_tian_yanagihara"]
AdjustedTest = Literal["mean_scaled", "mean_variance_adjusted", "scaled_shifted"]  # of least squares
Test = Literal["standard", "hotelling"] | ScaledTest | CorrectedTest | AdjustedTest
Interval = Literal["wald", "transformed"]
Parameterization = Literal["delta", "theta"]
Link = Literal["probit", "logit"]
Missing = Literal["listwise", "fiml", "fiml_x", "pairwise"]
Reference = Literal["normal", "t"]
Scale = Literal["size", "effective", "none"]
Penalty = Literal["between"]
SinglePsu = Literal["error", "centre", "certainty"]
Space = Literal["auto", "natural", "psd"]

SCALED: tuple[ScaledTest, ...] = get_args(ScaledTest)
CORRECTED: tuple[CorrectedTest, ...] = get_args(CorrectedTest)
ADJUSTED: tuple[AdjustedTest, ...] = get_args(AdjustedTest)
ESTIMATORS: tuple[str, ...] = ("ML", "MLR", "MLF", *get_args(LeastSquares))
# What each kind of least squares weights by, and which of its tests is shown.
LEAST_SQUARES: Mapping[str, tuple[Weighting, AdjustedTest | None]] = {
    "ULS": ("ULS", None),
    "ULSM": ("ULS", "mean_scaled"),
    "ULSMV": ("ULS", "scaled_shifted"),
    "ULSMVS": ("ULS", "mean_variance_adjusted"),
    "DWLS": ("DWLS", "scaled_shifted"),
    "WLSM": ("DWLS", "mean_scaled"),
    "WLSMV": ("DWLS", "scaled_shifted"),
    "WLSMVS": ("DWLS", "mean_variance_adjusted"),
    "WLS": ("WLS", None),
    "GLS": ("GLS", None),
}
TESTS: tuple[Test, ...] = ("standard", *SCALED, *CORRECTED, "hotelling", *ADJUSTED)
ROBUST = ("robust", "sandwich", "robust_huber_white", "robust_cluster")
MISSING = {
    "listwise": "listwise",
    **dict.fromkeys(("fiml", "ml", "direct"), "fiml"),
    **dict.fromkeys(("fiml_x", "ml_x", "direct_x"), "fiml_x"),
    **dict.fromkeys(("pairwise", "available_cases"), "pairwise"),
}
TEST_NAMES = {
    "mlr": "yuan_bentler_mplus",
    "yty": "yuan_tian_yanagihara",
    "satorra_bentler": "mean_scaled",
    "mean_var_adjusted": "mean_variance_adjusted",
    "satterthwaite": "mean_variance_adjusted",
}
# What an estimator's name stands for beside an estimator, where these options are not given themselves.
SHORT_FORMS: Mapping[str, Mapping[str, Any]] = {
    # Satorra and Bentler (1994): tr(U Gamma) with the expected information
    "MLM": {
        "estimator": "ML",
        "se": "robust",
        "information": "expected",
        "test": ("standard", "yuan_bentler"),
    },
}
REPLICATES = 1000
MAX_SEED = 2**64
MOST_NODES = 1000  # of quadrature, in each dimension
LARGEST_COUNT = 2**31 - 1  # of threads and iterations in the core: who allows more has as many
SURVEY = ("weights", "cluster_weights", "psu", "strata", "fpc")  # columns that say how rows were sampled
REPLICATION = ("brr", "fay", "jackknife1", "jackknife2", "jackknife2_both")  # how replicate weights were made
DESIGN_BASED = ("robust", "jackknife1", "replicate")  # errors from the spread of independent units


def require_choice(name: str, value: Any, allowed: Sequence[str]) -> None:
    """Refuse a value that is not among those allowed."""
    if value not in allowed:
        why = why_not(name, str(value))
        reason = f", which {why}" if why else ""
        raise MsemError(f"{name} must be one of {', '.join(map(repr, allowed))}, not {value!r}{reason}")


def require_whole(name: str, value: Any, least: int) -> int:
    """Refuse what is not a whole number, or a smaller one."""
    if isinstance(value, bool) or not hasattr(value, "__index__") or operator.index(value) < least:
        raise MsemError(f"{name} must be a whole number of at least {least}, not {value!r}")
    return operator.index(value)


def require_seed(seed: Any) -> int:
    """A seed as an integer below 2**64; a random one for None."""
    if seed is None:
        return secrets.randbits(63)
    if isinstance(seed, bool) or not hasattr(seed, "__index__") or not 0 <= operator.index(seed) < MAX_SEED:
        raise MsemError(f"seed must be a whole number from 0 to 2**64 - 1, or None, not {seed!r}")
    return operator.index(seed)


def require_threads(threads: Any) -> int:
    """A number of threads; by default as many as the calling thread may use, which are those of its processors."""
    return _core.thread_limit() if threads is None else _threads("threads", threads)


def _plain(name: object) -> str:
    return str(name).lower().replace(".", "_")


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise MsemError(f"{name} must be True or False, not {value!r}")
    return value


def _column(name: str, value: Any) -> str:
    if isinstance(value, list | tuple) and len(value) == 1:
        (value,) = value
    if not isinstance(value, str):
        raise MsemError(f"{name} must be the name of a column of the data, not a {type(value).__name__}")
    return value


class CrossedColumns(tuple[str, ...]):
    """Two columns of clusters of which neither lies within the other: that of level 3, then that of level 2."""

    __slots__ = ()


def crossed_columns(text: str) -> CrossedColumns | None:
    """The columns of a text such as "pupil * school", with an asterisk or a multiplication sign; None without one."""
    parts = [part.strip() for part in text.replace("×", "*").split("*")]
    if len(parts) < 2:
        return None
    if len(parts) > 2 or not all(parts) or parts[0] == parts[1]:
        raise MsemError(
            f"cluster={text!r}: crossed classifications are two columns, as in cluster='pupil * school'"
        )
    return CrossedColumns(reversed(parts))


def _clusters(name: str, value: Any) -> str | tuple[str, ...]:
    """A column, or several of nested clusters, the highest first."""
    if isinstance(value, CrossedColumns):
        return value
    if not isinstance(value, list | tuple) or len(value) == 1:
        column = _column(name, value)
        return crossed_columns(column) or column
    columns = tuple(_column(name, one) for one in value)
    if any(crossed_columns(one) for one in columns):
        raise MsemError(
            f"cluster={value!r}: two crossed classifications are one text, cluster='pupil * school'"
        )
    if not columns:
        raise MsemError("cluster=[] names no column: leave it out for a single-level model")
    if len(set(columns)) < len(columns):
        raise MsemError(f"cluster={value!r} names a column twice: one for each level above the first")
    return columns


def _weights_of_clusters(name: str, value: Any) -> str | tuple[str | None, ...] | None:
    """A column, or one for each level of clusters, the highest first; None where these have equal weights."""
    if not isinstance(value, list | tuple) or len(value) == 1:
        return _column(name, value)
    columns = tuple(None if one is None else _column(name, one) for one in value)
    return columns if any(columns) else None


def _choice(allowed: Any) -> Any:
    def read(name: str, value: Any) -> Any:
        plain = _plain(value)
        require_choice(name, plain, get_args(allowed))
        return plain

    return read


def _texts(name: str, value: Any) -> Any:
    """Texts as a tuple; what is none is refused where the texts are read."""
    return tuple(value) if isinstance(value, Iterable) and not isinstance(value, str | Mapping) else value


def several(names: str | Iterable[str]) -> tuple[str, ...]:
    """Names, each once; a text by itself is one name.

    Raises
    ------
    ArgumentError
        If there is no text and no sequence.
    """
    if not isinstance(names, Iterable):
        raise ArgumentError(f"a name or a sequence of names is expected, not {names!r}")
    return (names,) if isinstance(names, str) else tuple(dict.fromkeys(names))


def _variables(name: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, Iterable):
        raise ArgumentError(f"{name} is a list of variables, not {value!r}")
    return several(value)


def _ordered(name: str, value: Any) -> tuple[str, ...] | bool:
    return value if isinstance(value, bool) else _variables(name, value or ())


def _missing(name: str, value: Any) -> Any:
    plain = _plain(value)
    require_choice(name, plain, tuple(MISSING))
    return MISSING[plain]


def _estimator(name: str, value: Any) -> Any:
    upper = str(value).upper()
    require_choice(name, upper, (*ESTIMATORS, *SHORT_FORMS))
    return upper


def _require_short_form(estimator: str, values: Mapping[str, Any]) -> None:
    """Refuse Satorra and Bentler's correction where values may be missing, or are categories."""
    remedies = {"missing": 'take "MLR"', "ordered": 'leave it out, for "WLSMV"'}
    for name, remedy in remedies.items():
        if values.get(name, OPTIONS[name].default) != OPTIONS[name].default:
            raise UnsupportedError(
                f'estimator="{estimator}" is for complete data of continuous variables, not for {name}=: {remedy}'
            )


def _information(name: str, value: Any) -> Any:
    plain = _plain(value)
    require_choice(name, plain, get_args(Information))
    return plain


def _standard_errors(name: str, value: Any) -> Any:
    plain = _plain(value)
    if plain in get_args(Information):  # lavaan's short form
        return plain
    plain = "robust" if plain in ROBUST else plain
    require_choice(name, plain, get_args(StandardErrors))
    return plain


def _tests(name: str, value: Any) -> tuple[str, ...]:
    """Tests, each once; the likelihood ratio, of which the others are scalings, always first."""
    plain = map(_plain, (value,) if isinstance(value, str) else value)
    names = [TEST_NAMES.get(each, each) for each in plain]
    for each in names:
        require_choice(name, each, TESTS)
    return tuple(dict.fromkeys(("standard", *names)))


def _interval(name: str, value: Any) -> Any:
    plain = _plain(value)
    require_choice(name, plain, get_args(Interval))
    return plain


def _rotation(name: str, value: Any) -> str:
    return str(value)


def _rotation_args(name: str, value: Any) -> tuple[tuple[str, Any], ...]:
    return rotation_arguments(value)


def _iterations(name: str, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise MsemError(f"{name} must be a positive whole number, not {value!r}")
    return min(value, LARGEST_COUNT)


def _tolerance(name: str, value: Any) -> float:
    if not isinstance(value, float) or not 0 < value <= 1:
        raise MsemError(f"{name} must be a positive number up to 1, such as 1e-12, not {value!r}")
    return value


def _replicate_scale(name: str, value: Any) -> Any:
    if isinstance(value, str):
        plain = _plain(value)
        require_choice(name, plain, REPLICATION)
        return plain
    return tuple(map(float, value)) if isinstance(value, Iterable) else float(value)


def _space(name: str, value: Any) -> Any:
    plain = _plain(value)
    require_choice(name, plain, get_args(Space))
    return plain


def _starts(name: str, value: Any) -> int:
    return require_whole(name, value, 0)


def _nodes(name: str, value: Any) -> int:
    count = require_whole(name, value, 0)
    if count > MOST_NODES:
        raise MsemError(
            f"{name} must be {MOST_NODES} at most, not {value!r}: no integral takes more, and 31 or 61 show whether "
            "more change anything"
        )
    return count


def _threads(name: str, value: Any) -> int:
    return min(require_whole(name, value, 1), LARGEST_COUNT)


def _replicates(name: str, value: Any) -> int:
    return require_whole(name, value, 2)


def _seed(name: str, value: Any) -> int:
    return require_seed(value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How a model is read, estimated and tested: every option of `sem` once, with its default.

    None stands for what goes with the model, the data and the other options. The metadata of a field say how a value
    that is given is read. For the meaning of the options see `sem`.
    """

    cluster: str | tuple[str, ...] | None = field(default=None, metadata={"read": _clusters})
    group: str | None = field(default=None, metadata={"read": _column})
    group_equal: str | tuple[str, ...] = field(default=(), metadata={"read": _texts})
    group_partial: str | tuple[str, ...] = field(default=(), metadata={"read": _texts})
    constraints: str | tuple[str, ...] | None = field(default=None, metadata={"read": _texts})
    sample_cov: Any = None
    sample_mean: Any = None
    sample_nobs: Any = None
    sample_cov_rescale: bool = field(default=True, metadata={"read": _flag})
    missing: Missing = field(default="listwise", metadata={"read": _missing})
    weights: str | None = field(default=None, metadata={"read": _column})
    cluster_weights: str | tuple[str | None, ...] | None = field(
        default=None, metadata={"read": _weights_of_clusters}
    )
    weights_scale: Scale = field(default="size", metadata={"read": _choice(Scale)})
    psu: str | None = field(default=None, metadata={"read": _column})
    strata: str | None = field(default=None, metadata={"read": _column})
    fpc: str | None = field(default=None, metadata={"read": _column})
    single_psu: SinglePsu = field(default="error", metadata={"read": _choice(SinglePsu)})
    replicate_weights: tuple[str, ...] = field(default=(), metadata={"read": _variables})
    replicate_scale: str | float | tuple[float, ...] | None = field(
        default=None, metadata={"read": _replicate_scale}
    )
    auxiliary: tuple[str, ...] = field(default=(), metadata={"read": _variables})
    ordered: tuple[str, ...] | bool = field(default=(), metadata={"read": _ordered})
    parameterization: Parameterization | None = field(
        default=None, metadata={"read": _choice(Parameterization)}
    )
    link: Link = field(default="probit", metadata={"read": _choice(Link)})
    fixed_x: bool = field(default=True, metadata={"read": _flag})
    std_lv: bool = field(default=False, metadata={"read": _flag})
    orthogonal: bool = field(default=False, metadata={"read": _flag})
    meanstructure: bool | None = field(default=None, metadata={"read": _flag})
    penalty: Penalty | None = field(default=None, metadata={"read": _choice(Penalty)})
    rotation: str | None = field(default=None, metadata={"read": _rotation})
    rotation_args: Any = field(default=None, metadata={"read": _rotation_args})
    estimator: Estimator | None = field(default=None, metadata={"read": _estimator})
    information: Information | None = field(default=None, metadata={"read": _information})
    se: StandardErrors | None = field(default=None, metadata={"read": _standard_errors})
    test: tuple[Test, ...] | None = field(default=None, metadata={"read": _tests})
    ci: Interval = field(default="wald", metadata={"read": _interval})
    bootstrap: int | None = field(default=None, metadata={"read": _replicates})
    seed: int | None = field(default=None, metadata={"read": _seed})
    space: Space = field(default="auto", metadata={"read": _space})
    starts: int = field(default=0, metadata={"read": _starts})
    nodes: int = field(default=0, metadata={"read": _nodes})
    max_iterations: int = field(default=500, metadata={"read": _iterations})
    tolerance: float = field(default=1e-12, metadata={"read": _tolerance})
    threads: int | None = field(default=None, metadata={"read": _threads})

    @classmethod
    def read(cls, given: Mapping[str, Any], function: str = "sem") -> Settings:
        """Read options as a user gives them, under lavaan's names or ours.

        Parameters
        ----------
        given : mapping of str to object
        function : str
            What has been called, for messages.

        Raises
        ------
        TypeError
            If there is no such option.
        ValueError
            If an option is of the wrong kind, or has no effect.
        UnsupportedError
            If full information is asked for without means.
        """
        unknown = [name for name in given if name not in OPTIONS]
        if unknown:
            raise ArgumentError(unknown_option(function, unknown[0], OPTIONS))
        values: dict[str, Any] = {}
        for name, value in given.items():
            own = OPTIONS[name]
            default = value is None and own.default is None
            values[name] = value if default or not own.metadata else own.metadata["read"](name, value)
        if values.get("se") in get_args(Information):
            values["information"], values["se"] = values["se"], "standard"
        short = SHORT_FORMS.get(values.get("estimator") or "")
        if short is not None:
            _require_short_form(values["estimator"], values)
            chosen = {name: value for name, value in short.items() if values.get(name) is None}
            values |= chosen | {"estimator": short["estimator"]}
        useless = [name for name in ("bootstrap", "seed") if values.get(name) is not None]
        if useless and values.get("se") != "bootstrap":
            raise MsemError(f'{useless[0]}= has no effect without se="bootstrap": leave it out')
        settings = Settings(**values)
        if settings.weights_scale != "size" and settings.weights is None and not any(settings.inner_weights):
            raise MsemError("weights_scale= has no effect without weights=: leave it out")
        if settings.replicate_scale is not None and not settings.replicate_weights:
            raise MsemError("replicate_scale= has no effect without replicate_weights=: leave it out")
        if settings.se == "replicate" and not settings.replicate_weights:
            raise MsemError('se="replicate" needs replicate_weights=')
        if settings.se == "jackknife1" and settings.replicate_weights:
            raise MsemError('se="jackknife1" is for samples without replicate weights: leave it out')
        if settings.single_psu != "error" and settings.strata is None:
            raise MsemError("single_psu= has no effect without strata=: leave it out")
        _ = settings.rotated  # read here, so that mistakes are named before anything else
        if settings.penalty is not None and settings.method not in ("ML", "MLR"):
            raise UnsupportedError('penalty= is of a likelihood: it needs estimator="ML" or "MLR"')
        if settings.penalty is not None and settings.test is not None:
            raise UnsupportedError(
                "a penalized likelihood has no likelihood-ratio test: leave out test=, and use fit.wald_test(), "
                "fit.profile() or estimates(reference='t')"
            )
        if settings.incomplete and settings.meanstructure is False:
            raise UnsupportedError('missing="fiml" needs means: leave out meanstructure=False')
        return settings

    def limit(self) -> AbstractContextManager[object]:
        """No more threads than were asked for, while it lasts."""
        return _core.ThreadLimit(self.threads) if self.threads else nullcontext()

    @property
    def method(self) -> Estimator:
        """The estimator; maximum likelihood where it is open."""
        return self.estimator or "ML"

    @property
    def incomplete(self) -> bool:
        """Whether rows with missing values are kept."""
        return self.missing != "listwise"

    @property
    def rotated(self) -> Rotation:
        """How exploratory blocks are rotated."""
        if self.rotation is None and not self.rotation_args:
            return GEOMIN
        return rotation_of(self.rotation or "geomin", self.rotation_args or ())

    @property
    def surveyed(self) -> bool:
        """Whether rows have weights, or clusters come in primary sampling units or strata."""
        given = any(getattr(self, name) for name in (*SURVEY, "replicate_weights"))
        return given or any(self.inner_weights)

    def cluster_of(self, *, multilevel: bool) -> str | None:
        """The column by which rows are taken together: that of the highest clusters, which are independent.

        At one level that of primary sampling units if no cluster is named.
        """
        return self.highest if multilevel or self.cluster is not None else self.psu

    @property
    def highest(self) -> str | None:
        """The column of the highest clusters."""
        return self.cluster[0] if isinstance(self.cluster, tuple) else self.cluster

    @property
    def inner(self) -> tuple[str, ...]:
        """Columns of clusters within these, the highest first; of the lower level if they are crossed."""
        return tuple(self.cluster[1:]) if isinstance(self.cluster, tuple) else ()

    @property
    def cluster_columns(self) -> tuple[str, ...]:
        """Columns of clusters, the highest first."""
        return (self.highest, *self.inner) if self.highest else ()

    @property
    def highest_weights(self) -> str | None:
        """The column with the weights of the highest clusters."""
        given = self.cluster_weights
        return given[0] if isinstance(given, tuple) else given

    @property
    def inner_weights(self) -> tuple[str | None, ...]:
        """Columns with the weights of clusters within these, the highest first; empty without."""
        return self.cluster_weights[1:] if isinstance(self.cluster_weights, tuple) else ()

    @property
    def cluster_text(self) -> str:
        """What was given as `cluster`, as one writes it."""
        columns = self.cluster_columns
        if self.crossed:
            return repr(" * ".join(reversed(columns)))
        return repr(list(columns) if len(columns) > 1 else columns[0]) if columns else ""

    @property
    def crossed(self) -> bool:
        """Whether the clusters of one column do not lie within those of the other."""
        return isinstance(self.cluster, CrossedColumns)

    @property
    def fixed_covariates(self) -> bool:
        """Whether the likelihood is conditional on exogenous covariates."""
        return self.fixed_x and self.missing != "fiml_x"

    @property
    def means(self) -> bool | None:
        """Whether a single-level model has means; None: as the text says.

        Means that are given are fitted, and so are those of clustered data, as in lavaan.
        """
        given = self.sample_mean is not None or self.cluster is not None or self.surveyed
        if self.incomplete or (given and self.meanstructure is None):
            return True
        return self.meanstructure

    def _require_design_based(self, se: StandardErrors, *, scaled: bool) -> None:
        """Refuse inference that takes a sample with weights or strata for a simple one."""
        if self.method not in ("ML", "MLR") and self.weighting is None:
            raise UnsupportedError(
                'weights, primary sampling units and strata need errors by the sandwich, estimator="MLR", and not '
                f'"{self.method}"'
            )
        if se in ("standard", "bootstrap"):
            raise UnsupportedError(
                f'se="{se}" takes the sample for a simple one and does not hold with weights, primary sampling units '
                "or strata: leave it out"
            )
        from_acov = self.weighting is not None or bool(
            self.ordered
        )  # tests, if there are any, rest on acov(s)
        if not scaled and se != "none" and not from_acov:
            raise UnsupportedError(
                'test="standard" takes the sample for a simple one and does not hold with weights, primary sampling '
                "units or strata: leave it out for the scaled test"
            )

    def for_continuous(self) -> Settings:
        """The same.

        Raises
        ------
        UnsupportedError
            If an option is asked for that only ordered variables have.
        """
        if self.missing == "pairwise":
            raise UnsupportedError(
                'missing="pairwise" is for ordered variables, and none is in the model: missing="fiml" uses all values '
                "that are observed"
            )
        return self

    def for_ordered(self) -> Settings:
        """The same with the estimator that ordered variables have by default: least squares, in two stages.

        Raises
        ------
        UnsupportedError
            If an option is asked for that ordered variables do not have.
        """
        if self.estimator == "GLS":
            raise UnsupportedError(
                'estimator="GLS" is for continuous variables: models with ordered ones are fitted by "WLSMV" (the '
                'default), "ULSMV", "DWLS", "WLS" and the like, or at two levels by maximum likelihood, "ML" and "MLR"'
            )
        if self.penalty is not None:
            raise UnsupportedError("penalty= is not available with ordered variables")
        if self.meanstructure is False:
            raise UnsupportedError("ordered variables have thresholds: leave out meanstructure=False")
        if self.estimator in ("ML", "MLR", "MLF"):
            return self._for_integrals()
        if self.link != "probit":
            raise UnsupportedError(
                f'link="{self.link}" needs maximum likelihood, estimator="ML", which is for two levels'
            )
        if self.incomplete and self.missing != "pairwise":
            raise UnsupportedError(
                f'missing="{self.missing}" needs a likelihood, estimator="ML", which ordered variables have at two '
                'levels; missing="pairwise" uses for each pair of variables what is known of it'
            )
        if self.se == "standard":
            raise UnsupportedError(
                'se="standard" takes acov(s) from the normal distribution, which ordered variables do not have: leave '
                "it out for the sandwich"
            )
        estimator: Estimator = self.estimator or "WLSMV"
        se: StandardErrors | None = "robust" if estimator == "ULS" and self.se is None else self.se
        return replace(self, estimator=estimator, se=se)

    def _for_integrals(self) -> Settings:
        """For maximum likelihood of ordered variables, an integral: without what has no meaning there."""
        if self.parameterization == "delta":
            raise UnsupportedError(
                'parameterization="delta" is for least squares: by maximum likelihood residual variances are fixed, '
                '"theta"'
            )
        if self.missing == "pairwise":
            raise UnsupportedError(
                'missing="pairwise" is for least squares; by maximum likelihood missing="fiml" uses all values'
            )
        if self.missing == "fiml_x":
            raise UnsupportedError(
                'missing="fiml.x" models covariates, which ordered variables have to be given: use missing="fiml"'
            )
        if self.auxiliary:
            raise UnsupportedError("auxiliary variables are for continuous variables")
        other = next((test for test in self.test or () if test != "standard"), None)
        if other is not None:
            raise UnsupportedError(
                f"test={other!r} is against a saturated model, which ordered variables by maximum likelihood have none "
                "of: leave it out, and compare models by msem.compare_models"
            )
        if self.information == "expected":
            raise UnsupportedError(
                'information="expected" has no closed form for ordered variables: leave it out, for the observed one'
            )
        if self.se == "jackknife1":
            raise UnsupportedError(
                f'se="{self.se}" is not available for ordered variables by maximum likelihood'
            )
        information: Information | None = self.information
        if information is None and not (self.estimator == "MLF" and self.se != "robust"):
            information = "observed"
        return replace(self, parameterization="theta", test=("standard",), information=information)

    @property
    def weighting(self) -> Weighting | None:
        """What least squares weights by; None for maximum likelihood."""
        return LEAST_SQUARES[self.method][0] if self.method in LEAST_SQUARES else None

    @property
    def _open_errors(self) -> bool:
        """Whether standard errors are left to a weighted sample of several levels: see `ResolvedSettings.se_open`."""
        weighted = bool(self.weights or self.cluster_weights)
        return self.se is None and not self.ordered and self.weighting is None and weighted

    def _adjusted_test(self, *, clustered: bool) -> AdjustedTest | None:
        """The test that an estimator by least squares stands for; None where the standard one holds."""
        if self.weighting is None:
            return None
        own = LEAST_SQUARES[self.method][1]
        design_based = clustered or self.surveyed or self.se in DESIGN_BASED
        return "scaled_shifted" if own is None and design_based else own

    def _require_tests(self, test: tuple[Test, ...], se: StandardErrors) -> None:
        """Refuse tests and standard errors that do not go with the estimator."""
        least_squares = self.weighting is not None
        for each in test:
            if each != "standard" and (each in ADJUSTED) != least_squares:
                own = " or ".join(map(repr, ADJUSTED)) if least_squares else "'yuan_bentler_mplus'"
                remedy = own if least_squares or each != "mean_scaled" else 'estimator="MLM"'
                raise MsemError(
                    f'test={each!r} is not for estimator="{self.method}": take {remedy}, or leave it out'
                )
        if least_squares and se == "jackknife1":
            raise MsemError(f'se="{se}" is for maximum likelihood, not estimator="{self.method}"')
        if least_squares and self.information is not None:
            raise MsemError(
                'information= has no part in least squares, whose standard errors come from se="standard" or "robust": '
                "leave it out"
            )

    def resolved(self, *, nlevels: int, meanstructure: bool, expectations: bool = False) -> ResolvedSettings:
        """Settings of the fit of one model to one sample, with nothing that is still open.

        Parameters
        ----------
        nlevels : int
            Levels of the model.
        meanstructure : bool
            Whether the model has means.
        expectations : bool
            Whether the statistics are expectations under given moments, which have no observed information.

        Returns
        -------
        ResolvedSettings

        Raises
        ------
        ValueError
            If options do not go together.
        """
        multilevel = nlevels > 1
        clustered = not multilevel and self.cluster is not None  # the rows are not independent
        robust = self.method == "MLR" or (self.method == "ML" and (clustered or self.surveyed))
        adjusted = self._adjusted_test(clustered=clustered)
        robust = robust or adjusted is not None or self.weighting == "WLS"
        se = self.se or ("replicate" if self.replicate_weights else "robust" if robust else "standard")
        shown = "yuan_bentler_mplus" if self.weighting is None else adjusted
        test = self.test or (("standard", shown) if robust and shown is not None else ("standard",))
        if self.penalty:
            test = ("standard",)  # a penalized likelihood has none
        scaled = any(each in SCALED for each in test)
        observed = (multilevel or self.incomplete) and not expectations
        information = self.information
        if information is None and self.method == "MLF" and se != "robust":
            information = "first_order"
        elif information is None and self.weighting is not None:
            information = "observed" if self.incomplete else "expected"
        elif self.crossed:
            if information not in (None, "observed"):
                raise UnsupportedError(
                    f"information={information!r} is not available for crossed classifications, whose clusters are not "
                    "independent: leave it out, for the observed information"
                )
            information = "observed"
        elif information is None:
            information = "observed" if observed or robust or scaled or se in DESIGN_BASED else "expected"
        self._require_tests(test, se)
        if self.surveyed:
            self._require_design_based(se, scaled=scaled)
        if information == "first_order" and (se in DESIGN_BASED or scaled):
            raise MsemError(
                'information="first_order" is the meat of the sandwich and cannot be its bread: use "observed" or '
                '"expected"'
            )
        values = {name: getattr(self, name) for name in OPTIONS}
        resampled = se == "bootstrap"
        values |= {name: getattr(self, name) or "" for name in ("group", *SURVEY)}
        values["cluster"] = self.cluster_of(multilevel=nlevels > 1) or ""
        values["inner_clusters"] = self.inner
        values["cluster_weights"] = self.highest_weights or ""
        values["weights_of_inner"] = tuple(name or "" for name in self.inner_weights)
        values["replicate_scale"] = self.replicate_scale or ""
        values |= {
            "estimator": self.method,
            "se": se,
            "test": test,
            "penalty": self.penalty or "",
            "rotation": self.rotation or "",
            "rotation_args": self.rotation_args or (),
            "information": information,
            "parameterization": self.parameterization or ("theta" if multilevel else "delta"),
            "meanstructure": meanstructure,
            "bootstrap": (self.bootstrap or REPLICATES) if resampled else 0,
            "seed": require_seed(self.seed) if resampled else 0,
            "threads": self.threads or 0,
            "se_open": se == "robust" and multilevel and self._open_errors,
        }
        return ResolvedSettings(**values)


OPTIONS = {own.name: own for own in fields(Settings)}


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedSettings(Settings):
    """Settings of a fit after everything that goes with model and data has been chosen.

    Attributes
    ----------
    cluster, group, weights, cluster_weights, psu, strata, fpc, penalty, rotation : str
        "" where there is none.
    estimator : str
    information : {"observed", "expected", "first_order"}
        What the standard errors are computed from: the bread of robust ones.
    parameterization : {"delta", "theta"}
        Of ordered variables, if there are any.
    se : {"standard", "robust", "jackknife1", "replicate", "bootstrap", "none"}
    test : tuple of str
        The likelihood-ratio test, "standard", and others out of `TESTS`.
    meanstructure : bool
    bootstrap, seed : int
        Replicates and their seed; 0 without ``se="bootstrap"``.
    threads : int
        How many there may be at most; 0: one for each processor.
    se_open : bool
        Whether `se` is left to the sample, which has weights: the one-step jackknife if it has few clusters.
    """

    cluster: str
    inner_clusters: tuple[str, ...] = ()
    weights_of_inner: tuple[str, ...] = ()
    group: str
    weights: str
    cluster_weights: str
    psu: str
    strata: str
    fpc: str
    penalty: Any
    rotation: str
    estimator: Estimator
    information: Information
    parameterization: Parameterization
    se: StandardErrors
    test: tuple[Test, ...]
    meanstructure: bool
    bootstrap: int
    seed: int
    threads: int
    se_open: bool

    @property
    def inner(self) -> tuple[str, ...]:
        """Columns of clusters within the highest, or crossed with them, the highest first."""
        return self.inner_clusters

    @property
    def inner_weights(self) -> tuple[str | None, ...]:
        """Columns with the weights of clusters within the highest ones, the highest first."""
        return self.weights_of_inner

    @property
    def scaled_test(self) -> ScaledTest | None:
        """The first scaled test, which scaled fit measures come from."""
        return next((scaled for test in self.test for scaled in SCALED if test == scaled), None)

    @property
    def adjusted_test(self) -> AdjustedTest | None:
        """The first test of least squares beside the standard one, which adjusted fit measures come from."""
        return next((adjusted for test in self.test for adjusted in ADJUSTED if test == adjusted), None)

    @property
    def corrected_tests(self) -> tuple[CorrectedTest, ...]:
        """Tests with a correction for small samples."""
        return tuple(corrected for corrected in CORRECTED if corrected in self.test)

    @property
    def by_cluster(self) -> bool:
        """Whether a test or the standard errors need single clusters."""
        return self.robust or "hotelling" in self.test

    @property
    def robust(self) -> bool:
        """Whether inference rests on independent clusters instead of normal variables."""
        return self.se in DESIGN_BASED or self.scaled_test is not None or self.adjusted_test is not None
