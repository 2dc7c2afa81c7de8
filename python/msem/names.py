"""Names that other programs have for what this one does: what a user types first, and what it is called here.

One table serves the messages of `msem` and of fits, those of options, and the page for users of other programs.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple, NoReturn


class Translation(NamedTuple):
    """A name elsewhere.

    Attributes
    ----------
    program : str
    name : str
        There.
    here : str
        What to write here; "" where there is nothing of the kind.
    note : str
        What differs, or what to do instead.
    """

    program: str
    name: str
    here: str
    note: str = ""


NOT_YET = "not there yet"

FUNCTIONS = tuple(
    Translation(*entry)
    for entry in (
        # fitting
        ("lavaan", "lavaan", "msem.sem(model, data, ...)", "always with the defaults of sem()"),
        ("lavaan", "lavaanList", "msem.compile(model, ...).fit_many(samples)"),
        ("lavaan", "semList", "msem.compile(model, ...).fit_many(samples)"),
        ("lavaan", "cfaList", "msem.compile(model, fun='cfa', ...).fit_many(samples)"),
        ("lavaan", "fsr", "", f"{NOT_YET}: scores are fit.factor_scores(), whose regressions are biased"),
        # results
        ("lavaan", "parameterEstimates", "fit.estimates()"),
        ("lavaan", "standardizedSolution", "fit.standardized()"),
        ("lavaan", "coef", "fit.params"),
        ("lavaan", "vcov", "fit.cov_params()"),
        ("lavaan", "confint", "fit.conf_int()"),
        ("lavaan", "logLik", "fit.llf"),
        ("lavaan", "AIC", "fit.aic"),
        ("lavaan", "BIC", "fit.bic"),
        ("lavaan", "fitMeasures", "fit.fit_measures()", "dots in names are underscores"),
        ("lavaan", "modificationIndices", "fit.modification_indices()"),
        ("lavaan", "modindices", "fit.modification_indices()"),
        ("lavaan", "lavResiduals", 'fit.residuals("standardized")', "srmr and crmr with tests: fit.srmr()"),
        ("lavaan", "lavPredict", "fit.factor_scores()", "fit.random_effects() for observed variables"),
        ("lavaan", "lavPredictY", "fit.predict(data)"),
        ("lavaan", "fitted", "fit.implied", "moments by level; values of rows are fit.fittedvalues"),
        ("lavaan", "lavInspect", "fit.implied, fit.saturated, fit.rsquare(), ...", "an attribute for each"),
        ("lavaan", "lavTech", "fit.implied, fit.saturated, fit.rsquare(), ...", "an attribute for each"),
        ("lavaan", "inspect", "fit.implied, fit.saturated, fit.rsquare(), ...", "an attribute for each"),
        ("lavaan", "lavScores", "fit.scores()"),
        ("lavaan", "estfun", "fit.scores()"),
        ("lavaan", "parTable", "fit.table.rows", "as a data frame: fit.estimates()"),
        ("lavaan", "lavaanify", "msem.compile(model).table"),
        ("lavaan", "lavParTable", "msem.compile(model).table"),
        ("lavaan", "lavNames", "fit.table.observed(level), fit.table.latent(level)"),
        ("lavaan", "lavOptions", "fit.options"),
        ("lavaan", "varTable", "msem.describe(data, cluster=...)"),
        # tests
        ("lavaan", "anova", "msem.compare_models(fit1, fit2)"),
        ("lavaan", "lavTestLRT", "msem.compare_models(fit1, fit2)"),
        ("lavaan", "lavTestWald", 'fit.wald_test("a == b")'),
        ("lavaan", "lavTestScore", 'fit.score_test(release="a == b")'),
        # resampling, simulation
        ("lavaan", "bootstrapLavaan", "fit.bootstrap()"),
        ("lavaan", "bootstrapLRT", 'fit.bootstrap(kind="parametric").chisq'),
        ("lavaan", "simulateData", "msem.simulate(model, ...)"),
        # data
        ("lavaan", "getCov", "msem.covariance(text, names=...)"),
        ("lavaan", "cor2cov", "msem.covariance(matrix, sd=...)"),
        ("lavaan", "lavCor", "msem.saturated(data, cluster=...)"),
        ("lavaan", "InformativeTesting", "", f"{NOT_YET}: inequalities in the model, and fit.constraints()"),
        ("lavaan", "mplus2lavaan", "", f"{NOT_YET}: see the table of Mplus's words"),
        ("lavaan", "lavExport", "", "models are lavaan's own text"),
        # semTools, lavaan.mi
        ("semTools", "compRelSEM", "fit.reliability()"),
        ("semTools", "AVE", "fit.reliability()"),
        ("semTools", "maximalRelia", "fit.reliability()"),
        (
            "semTools",
            "measurementInvariance",
            "msem.invariance(model, data, group=...)",
        ),
        (
            "semTools",
            "measEq.syntax",
            "msem.invariance(model, data, group=...)",
            "or group_equal= of msem.sem",
        ),
        ("semTools", "compareFit", "msem.compare_models(fit1, fit2)", "side by side: msem.table(fit1, fit2)"),
        ("semTools", "moreFitIndices", "fit.fit_measures()"),
        ("semTools", "plausibleValues", "fit.plausible_values(n)"),
        ("semTools", "monteCarloCI", 'fit.defined(method="monte_carlo")'),
        ("semTools", "auxiliary", 'msem.sem(..., missing="fiml", auxiliary=[...])'),
        ("semTools", "SSpower", "msem.power(model, population, design)"),
        ("semTools", "indProd", "", "add the product as a column of the data"),
        ("semTools", "probe2WayMC", 'fit.simple_slopes("y ~ x", {"w": [-1, 0, 1]})', "of observed variables"),
        ("semTools", "plotProbe", 'msem.plots.simple_slopes(fit, "y ~ x")'),
        (
            "lavaan.mi",
            "sem.mi",
            "msem.pool([fit, ...])",
            "a fit for each data set: [msem.sem(model, one, ...) for one in imputations]",
        ),
        ("lavaan.mi", "cfa.mi", "msem.pool([fit, ...])"),
        ("lavaan.mi", "runMI", "msem.pool([fit, ...])"),
        ("lavaan.mi", "lavTestLRT.mi", "msem.pool([fit, ...]).likelihood_ratio(msem.pool([smaller, ...]))"),
        ("semPlot", "semPaths", "fit.diagram()"),
        # misty, multilevelTools, r2mlm
        ("misty", "multilevel.descript", "msem.describe(data, cluster=...)"),
        ("misty", "multilevel.cor", "msem.describe(data, cluster=...)"),
        ("misty", "multilevel.icc", "fit.icc_table()"),
        (
            "misty",
            "multilevel.cfa",
            "msem.sem(model, data, cluster=...)",
            "kinds of constructs: msem.invariance(..., levels=True)",
        ),
        ("misty", "multilevel.invar", "msem.invariance(model, data, levels=True, cluster=...)"),
        ("misty", "multilevel.fit", "fit.fit_measures(level=...)"),
        ("misty", "multilevel.omega", "fit.reliability()"),
        ("misty", "multilevel.indirect", "fit.effects()"),
        ("misty", "multilevel.r2", "fit.variance_partition()"),
        ("r2mlm", "r2mlm", "fit.variance_partition()"),
        ("performance", "r2_nakagawa", "fit.variance_partition()"),
        # statsmodels
        ("statsmodels", "MixedLM", "msem.sem(model, data, cluster=...)"),
        ("statsmodels", "mixedlm", "msem.sem(model, data, cluster=...)"),
        ("statsmodels", "SEM", "msem.sem(model, data)"),
        ("statsmodels", "from_formula", "msem.sem(model, data)", "the model is a text of formulas"),
        ("statsmodels", "fe_params", "fit.params"),
        ("statsmodels", "bse_fe", "fit.bse"),
        ("statsmodels", "cov_re", "fit.implied.between.cov"),
        ("statsmodels", "vcomp", "fit.implied.between.cov"),
        ("statsmodels", "rsquared", "fit.rsquare()"),
        ("statsmodels", "get_prediction", "fit.predict(data)"),
        ("statsmodels", "get_influence", "fit.influence()"),
        ("statsmodels", "t_test", 'fit.wald_test("a == b")'),
        ("statsmodels", "f_test", 'fit.wald_test("a == b")'),
        ("statsmodels", "compare_lr_test", "msem.compare_models(fit1, fit2)"),
        ("statsmodels", "summary2", "fit.summary()"),
        ("statsmodels", "summary_col", "msem.table(fit1, fit2)"),
        (
            "statsmodels",
            "loglike",
            "fit.objective.llf(theta)",
            "fit.llf at the estimates, fit.params",
        ),
        ("statsmodels", "conf_int_el", "fit.profile()"),
        ("statsmodels", "load", "msem.SavedFit.load(path)"),
        # lme4
        ("lme4", "lmer", "msem.sem(model, data, cluster=...)"),
        ("lme4", "fixef", "fit.params"),
        ("lme4", "ranef", "fit.random_effects()"),
        ("lme4", "VarCorr", "fit.implied.between.cov"),
        ("lme4", "bootMer", 'fit.bootstrap(kind="parametric")'),
        ("lme4", "deviance", "-2 * fit.llf"),
        ("lme4", "isSingular", "fit.status"),
        ("lme4", "refit", "fit.update(data=data)"),
        ("lme4", "sigma", "fit.implied.within.cov"),
        # psych
        ("psych", "omega", "fit.reliability()"),
        ("psych", "alpha", "fit.reliability()"),
        # pandas
        ("pandas", "read_csv", "msem.read_data(path)", "a frame of pandas is taken as it is"),
        ("pandas", "to_csv", "msem.table(fit).save(path)", "all digits: fit.estimates().to_csv(path)"),
        ("pandas", "to_latex", "msem.table(fit).save(path)"),
        ("pandas", "to_excel", "fit.estimates().to_excel(path)"),
        ("pandas", "plot", "fit.diagram()", "plots of tables are in msem.plots"),
        # semopy
        ("semopy", "Model", "msem.sem(model, data)"),
        ("semopy", "calc_stats", "fit.fit_measures()"),
        ("semopy", "semplot", "fit.diagram()"),
    )
)

WORDS = tuple(
    Translation("Mplus", *entry)
    for entry in (
        ("f BY y1 y2 y3", "f =~ y1 + y2 + y3"),
        ("f BY y1* y2", "f =~ NA*y1 + y2"),
        ("f BY y1@1", "f =~ 1*y1"),
        ("y ON x1 x2", "y ~ x1 + x2"),
        ("y WITH x", "y ~~ x"),
        ("[y]", "y ~ 1"),
        ("y (a)", "y ~~ a*y", "a label, before the variable"),
        ("%WITHIN%", "level: 1", "or level: within"),
        ("%BETWEEN%", "level: 2", "or level: between"),
        ("s | y ON x", 'y ~ rv("s")*x', "below level: 1"),
        ("TYPE = TWOLEVEL", "level: blocks in the model, and cluster="),
        ("TYPE = COMPLEX", "cluster= with a model without levels"),
        ("CLUSTER = school", 'cluster="school"'),
        ("GROUPING = g", 'group="g"'),
        ("MODEL CONSTRAINT: NEW(ab); ab = a*b", "ab := a*b"),
        ("MODEL TEST: a = b", 'fit.wald_test("a == b")'),
        ("MODEL INDIRECT", "fit.effects()"),
        ("ESTIMATOR = MLR", 'estimator="MLR"', "the default of Mplus; here that is ML"),
        ("ESTIMATOR = BAYES", "fit.posterior()"),
        ("MODINDICES", "fit.modification_indices()"),
        ("STANDARDIZED (STDYX, STD, STDY)", 'fit.standardized("std_all"), "std_lv", "std_nox"'),
        ("PROCESSORS", "threads="),
        ("CINTERVAL", "fit.conf_int()"),
        ("CINTERVAL (BCBOOTSTRAP)", 'fit.bootstrap().conf_int(kind="bca")'),
        ("SAVEDATA: SAVE = FSCORES", "fit.factor_scores()"),
        ("TECH3", "fit.cov_params()"),
        ("TECH4", "fit.implied[1], fit.implied[2]"),
        ("RESIDUAL", "fit.residuals()"),
        ("SAMPSTAT", "fit.saturated"),
        ("AUXILIARY = (m) z", 'missing="fiml", auxiliary=["z"]'),
        ("TYPE = IMPUTATION", "msem.pool([fit, ...])"),
        ("PLAUSIBLE", "fit.plausible_values(n)"),
        ("MODEL = CONFIGURAL METRIC SCALAR", "msem.invariance(model, data, group=...)"),
        ("MONTECARLO", "msem.power(model, population, design)"),
    )
)

OPTIONS = tuple(
    Translation(*entry)
    for entry in (
        ("lavaan", "integration_ngh", "nodes=", "of an adaptive rule, so that few are enough"),
        ("lavaan", "sampling_weights", "weights=", "and cluster_weights= at the between level"),
        ("lavaan", "bounds", "", "write bounds into the model: y1 ~~ v*y1 and a line 'v > 0'"),
        ("lavaan", "start", "", "write starting values into the model: f =~ start(0.8)*y2"),
        ("lavaan", "mimic", "", "the defaults are lavaan's"),
        ("lavaan", "likelihood", "", 'the likelihood is "normal", of N: see docs/differences-from-lavaan.md'),
        ("lavaan", "effect_coding", "", "write the constraint into the model: (l1 + l2 + l3)/3 == 1"),
        ("lavaan", "group_label", "", "groups are in the order of the categories of the column"),
        ("lavaan", "do_fit", "", "msem.compile(model) reads a model without fitting it"),
        ("lavaan", "verbose", "", "fit.iterations has every step"),
        ("lavaan", "control", "", "max_iterations= and tolerance= are the options of the optimiser"),
        ("lavaan", "optim_method", "", "there is one optimiser: Fisher scoring, then Newton steps"),
        (
            "lavaan",
            "nacov",
            "",
            'give msem.LevelMoments with known_acov= to msem.segregated(..., gamma="robust")',
        ),
        ("lavaan", "wls_v", "", 'the weights are those of estimator="WLS", "DWLS", "ULS" and "GLS"'),
        ("lavaan", "ncpus", "threads="),
        ("lavaan", "parallel", "threads="),
        ("", "n_jobs", "threads="),
        ("", "nthreads", "threads="),
        ("", "groups", "cluster=", "the column with the cluster ids"),
        (
            "statsmodels",
            "re_formula",
            "",
            "random effects are the between level: a block 'level: 2' of the model",
        ),
        (
            "statsmodels",
            "vc_formula",
            "",
            "random effects are the between level: a block 'level: 2' of the model",
        ),
        (
            "statsmodels",
            "reml",
            "",
            "estimation is by maximum likelihood; for few clusters see docs/small-samples.md",
        ),
        ("", "maxiter", "max_iterations="),
        ("", "missing_data", "missing="),
        ("", "df", "data, the second argument"),
        ("", "clusters", "cluster="),
        ("", "cluster_id", "cluster="),
        ("", "id", "cluster="),
        ("", "grouping", "group="),
        ("Mplus", "type", "", "levels are in the model, 'level: 1' and 'level: 2', and clusters in cluster="),
        ("Mplus", "h1", "", "fit.saturated has the unrestricted moments"),
    )
)

VALUES: Mapping[str, Mapping[tuple[str, ...], str]] = {
    "estimator": {
        (
            "MLMV",
            "MLMVS",
        ): 'is not there; take "MLM", of the same errors and a test scaled by its mean alone, or "MLR"',
        ("BAYES",): 'is not an estimator here: take "ML", and fit.posterior() of the fit',
        (
            "REML",
        ): 'is not for structural equation models; take "ML", and for few clusters see docs/small-samples.md',
    },
    "missing": {
        (
            "two_stage",
            "robust_two_stage",
        ): 'is not there yet; take "fiml", which uses all values',
    },
    "se": {
        ("cluster", "clustered", "robust_sem", "hc0", "hc1"): 'is called "robust" here',
        ("bca", "boot"): 'is called "bootstrap" here',
    },
    "test": {
        ("bollen_stine",): 'is fit.bootstrap(kind="parametric").chisq',
    },
    "information": {("hessian",): 'is called "observed" here'},
}


def plain(name: str) -> str:
    """A name without what programs differ in: capitals, dots and underscores."""
    return "".join(letter for letter in name.lower() if letter.isalnum())


BY_NAME = {plain(one.name): one for one in FUNCTIONS[::-1]}
BY_OPTION = {plain(one.name): one for one in OPTIONS[::-1]}


def said_of(one: Translation) -> str:
    """What is here for what is elsewhere, as a sentence."""
    if not one.here:
        return one.note
    name = f"{one.program}'s {one.name} is" if one.program else "it is"
    return f"{name} {one.here} here" + (f" ({one.note})" if one.note else "")


def unknown_name(owner: str, name: str, known: Iterable[str], of_fits: Iterable[str] = ()) -> str:
    """Message for an attribute that does not exist.

    Parameters
    ----------
    owner : str
        What was asked, such as "msem" or "a fit".
    name : str
    known : iterable of str
        Names that exist.
    of_fits : iterable of str
        Names that fits have, for an owner that is none.
    """
    same = {plain(one): one for one in known}
    asked = {plain(one): one for one in of_fits if not one.startswith("_")}
    if plain(name) in asked:
        return f"{owner} has no {name!r}: fits have it, fit.{asked[plain(name)]}"
    meant = BY_NAME.get(plain(name))
    if meant is not None and f"fit.{name}(" in meant.here:  # what a fit of msem.sem has, and this does not
        near = difflib.get_close_matches(name, list(same.values()), n=3, cutoff=0.7)
        hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
        return f"{owner} has no {name!r}, which fits of msem.sem have{hint}"
    if plain(name) in same:
        return f"{owner} has no {name!r}: it is called {same[plain(name)]!r}"
    if plain(name) in BY_NAME:
        return f"{owner} has no {name!r}: {said_of(BY_NAME[plain(name)])}"
    near = difflib.get_close_matches(name, list(same.values()), n=3, cutoff=0.7)
    return f"{owner} has no {name!r}" + (f"; did you mean {' or '.join(map(repr, near))}?" if near else "")


def unknown_option(function: str, name: str, known: Iterable[str]) -> str:
    """Message for an option that does not exist; `known` are those that do."""
    names = list(known)
    same = next((one for one in names if plain(one) == plain(name)), "")
    if same:
        return f"{function}() has no option {name!r}: it is called {same!r}"
    if not names:
        return f"{function}() has no option {name!r}, nor any other"
    if plain(name) in BY_OPTION and "cluster" in names:  # they are options of what takes data
        one = BY_OPTION[plain(name)]
        return f"{function}() has no option {name!r}: {one.note if not one.here else said_of(one)}"
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"{function}() has no option {name!r}; {hint}it has: {', '.join(names)}"


def why_not(option: str, value: str) -> str:
    """Why an option does not take a value that other programs have; empty if nothing is known of it."""
    for values, why in VALUES.get(option, {}).items():
        if plain(value) in map(plain, values):
            return why
    return ""


class Translated:
    """A result whose names in other programs are answered with the names it has."""

    def __dir__(self) -> list[str]:
        """Names that are completed: without what is kept of questions that were asked."""
        return [name for name in super().__dir__() if name.isidentifier()]

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> NoReturn:
            """Say what an attribute that does not exist is called here."""
            if hasattr(type(self), name):  # a property that has no value says why itself
                return object.__getattribute__(self, name)
            if name.startswith("_"):
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
            known = [one for one in dir(self) if not one.startswith("_")]
            raise AttributeError(unknown_name(f"a {type(self).__name__}", name, known))
