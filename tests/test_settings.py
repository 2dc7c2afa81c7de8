"""The record of options: the same as the signature of `sem`, read in one place, nothing left open in a fit."""

import inspect
import re
from dataclasses import FrozenInstanceError, fields

import pytest

import msem
from msem.settings import ResolvedSettings, Settings

MODEL = "level: 1\n fw =~ y1 + y2 + y3\nlevel: 2\n fb =~ y1 + y2 + y3"


def options_of(function):
    """Keyword options and their defaults, as help shows them."""
    parameters = inspect.signature(function).parameters.values()
    return {one.name: one.default for one in parameters if one.kind is one.KEYWORD_ONLY}


@pytest.mark.parametrize("function", [msem.sem, msem.cfa, msem.growth])
def test_the_signature_is_the_record(function):
    record = {own.name: own.default for own in fields(Settings)}
    assert list(options_of(function)) == list(record)
    assert options_of(function) == record


def test_options_are_documented():
    documented = set(
        re.findall(r"\w+", " ".join(re.findall(r"^    (\w[\w, ]*)(?: :|$)", msem.sem.__doc__, re.M)))
    )
    assert documented >= {own.name for own in fields(Settings)}


@pytest.mark.parametrize("function", [msem.cfa, msem.growth, msem.compile])
def test_misspelt_options_are_refused_by_name(function):
    fun = "sem" if function is msem.compile else function.__name__
    with pytest.raises(
        TypeError, match=rf"{fun}\(\) has no option 'std_lvv'; did you mean 'std_lv'\? it has: clus"
    ):
        function(MODEL, std_lvv=True)


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ({}, {}),
        ({"missing": "ml.x"}, {"missing": "fiml_x"}),
        ({"missing": "Direct"}, {"missing": "fiml"}),
        ({"estimator": "mlr"}, {"estimator": "MLR"}),
        ({"se": "robust.huber.white"}, {"se": "robust"}),
        ({"se": "first.order"}, {"se": "standard", "information": "first_order"}),
        ({"test": "mlr"}, {"test": ("standard", "yuan_bentler_mplus")}),
        ({"test": ["yuan.bentler", "standard"]}, {"test": ("standard", "yuan_bentler")}),
        ({"group_equal": ["loadings"]}, {"group_equal": ("loadings",)}),
        ({"auxiliary": ["a", "b", "a"]}, {"auxiliary": ("a", "b")}),
        ({"cluster": None, "information": None}, {}),
    ],
)
def test_options_are_read(given, read):
    assert Settings.read(given) == Settings(**read)


@pytest.mark.parametrize(
    ("given", "nlevels", "expectations", "se", "information", "test"),
    [
        ({}, 2, False, "standard", "observed", ("standard",)),
        ({}, 2, True, "standard", "expected", ("standard",)),
        ({}, 1, False, "standard", "expected", ("standard",)),
        ({"cluster": "c"}, 1, False, "robust", "observed", ("standard", "yuan_bentler_mplus")),
        ({"cluster": "c"}, 2, False, "standard", "observed", ("standard",)),
        (
            {"cluster": "c", "estimator": "ULS"},
            1,
            False,
            "robust",
            "expected",
            ("standard", "scaled_shifted"),
        ),
        ({"estimator": "ULS"}, 1, False, "standard", "expected", ("standard",)),
        ({"estimator": "WLS"}, 2, False, "robust", "expected", ("standard",)),
        ({"estimator": "wlsmv"}, 2, False, "robust", "expected", ("standard", "scaled_shifted")),
        ({"estimator": "MLR"}, 1, False, "robust", "observed", ("standard", "yuan_bentler_mplus")),
        ({"estimator": "MLF"}, 2, False, "standard", "first_order", ("standard",)),
        ({"estimator": "MLF", "se": "robust"}, 2, False, "robust", "observed", ("standard",)),
        ({"missing": "fiml"}, 1, False, "standard", "observed", ("standard",)),
        ({"se": "none"}, 2, False, "none", "observed", ("standard",)),
        ({"test": "yuan.bentler"}, 1, False, "standard", "observed", ("standard", "yuan_bentler")),
    ],
)
def test_what_is_open_follows_from_the_rest(given, nlevels, expectations, se, information, test):
    settings = Settings.read(given).resolved(nlevels=nlevels, meanstructure=True, expectations=expectations)
    assert (settings.se, settings.information, settings.test) == (se, information, test)


def test_a_fit_has_no_open_settings():
    settings = msem.sem(MODEL, msem.load_demo(), cluster="cluster").options
    assert isinstance(settings, ResolvedSettings)
    samples = {"sample_cov", "sample_mean", "sample_nobs", "constraints"}
    assert not [
        own.name
        for own in fields(settings)
        if getattr(settings, own.name) is None and own.name not in samples
    ]
    with pytest.raises(FrozenInstanceError):
        settings.se = "none"


def test_compiled_models_say_what_was_asked_for():
    model = msem.compile(MODEL, cluster="cluster", missing="listwise", std_lv=True)
    assert model.options == {"cluster": "cluster", "std_lv": True}


@pytest.mark.parametrize("count", [2**31, 2**70])
def test_counts_beyond_those_of_the_core_are_its_greatest(count):
    fit = msem.sem(MODEL, msem.load_demo(), cluster="cluster", threads=count, max_iterations=count)
    assert fit.status == "ok"
    assert len(fit.influence(threads=count, progress=False).to_frame()) == fit.nclusters
