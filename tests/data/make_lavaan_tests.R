# Tests of hypotheses about models of the demonstration data by lavaan.
#
#   Rscript tests/data/make_lavaan_tests.R        (from the root of the checkout; needs lavaan and jsonlite)
#
# Likelihood-ratio tests of lavaan's methods that hold for the model (not satorra.2000 and satorra.bentler.2010 at two
# levels, see docs/differences-from-lavaan.md), Wald tests, and score tests with expected information.
suppressMessages(library(lavaan))

# Covariates are centred: lavaan's scores of clusters are wrong where within-only covariates are not.
demo <- read.csv(gzfile("python/msem/data/demo.csv.gz"))
for (x in c("x1", "x2", "x3")) demo[[x]] <- demo[[x]] - mean(demo[[x]])
target <- "tests/data/lavaan_tests.json"

covariates <- c(
  large = "
level: 1
  fw =~ y1 + a*y2 + b*y3
  fw ~ p*x1 + q*x2 + r*x3
level: 2
  fb =~ y1 + c*y2 + d*y3
  fb ~ w1 + w2
", small = "
level: 1
  fw =~ y1 + a*y2 + b*y3
  fw ~ p*x1 + p*x2 + r*x3
level: 2
  fb =~ y1 + a*y2 + b*y3
  fb ~ w1 + w2
")
two_level <- c(
  large = "
level: 1
  fw =~ y1 + a*y2 + b*y3 + y4
  y2 ~~ v*y2
  y3 ~~ w*y3
level: 2
  fb =~ y1 + c*y2 + d*y3 + y4
", small = "
level: 1
  fw =~ y1 + a*y2 + b*y3 + y4
  y2 ~~ v*y2
  y3 ~~ v*y3
level: 2
  fb =~ y1 + a*y2 + b*y3 + y4
")
single_level <- c(
  large = "
  f1 =~ y1 + a*y2 + b*y3
  f2 =~ y4 + c*y5 + d*y6
", small = "
  f1 =~ y1 + a*y2 + a*y3
  f2 =~ y4 + a*y5 + d*y6
")
cases <- list(
  two_level = list(models = two_level, cluster = "cluster", hypothesis = "a == c\n b == d",
                   nonlinear = "a*b == c*d^2\n v/w == 1", add = "level: 1\n y1 ~~ y2\n level: 2\n y1 ~~ y3"),
  covariates = list(models = covariates, cluster = "cluster", hypothesis = "a == c\n b == d",
                    nonlinear = "a*b == c*d^2\n q - 2*r == 0", add = "level: 1\n y1 ~~ y2\n level: 2\n y1 ~~ y3"),
  single_level = list(models = single_level, hypothesis = "a == b\n a == c", nonlinear = "log(a) == d*c",
                      add = "y1 ~~ y4\n y2 ~~ y3")
)

# lavaan's optimiser stops early: Newton steps on its own gradient, within its equality constraints, end at the maximum.
# Its information is per independent unit, its gradient that of -logl / N.
newton_step <- function(fit) {
  free <- if (fit@Model@eq.constraints) fit@Model@eq.constraints.K else diag(lavInspect(fit, "npar"))
  independent <- if (lavInspect(fit, "nlevels") > 1) lavInspect(fit, "nclusters") else lavInspect(fit, "nobs")
  information <- independent * lavTech(fit, "information.observed")
  gradient <- lavInspect(fit, "nobs") * drop(lavTech(fit, "gradient"))
  drop(free %*% solve(t(free) %*% information %*% free, t(free) %*% gradient))
}

fitted <- function(case, which, estimator) {
  fixed <- list(data = demo, cluster = case$cluster, estimator = estimator, em.h1.tol = 1e-12,
                em.h1.iter.max = 100000)
  fit <- do.call("sem", c(list(model = case$models[[which]]), fixed))
  for (i in 1:4) {
    table <- parTable(fit)
    table$ustart[table$free > 0] <- table$est[table$free > 0] - newton_step(fit)
    table$start <- table$est <- table$se <- NULL
    fit <- do.call("sem", c(list(model = table, control = list(rel.tol = 1e-9)), fixed))
  }
  stopifnot(lavInspect(fit, "converged"), max(abs(newton_step(fit))) < 1e-9)
  fit
}

difference <- function(small, large, method) {
  table <- lavTestLRT(small, large, method = method)
  list(chisq_diff = table[2, "Chisq diff"], df_diff = table[2, "Df diff"], pvalue = table[2, "Pr(>Chisq)"])
}

wald <- function(fit, hypothesis) lavTestWald(fit, hypothesis)[c("stat", "df", "p.value")]

score <- function(fit, ...) {
  found <- suppressWarnings(lavTestScore(fit, cumulative = TRUE, epc = TRUE, ...))
  kept <- intersect(c("lhs", "op", "rhs", "block", "group", "level", "label", "plabel", "est", "epc"), names(found$epc))
  list(total = unclass(found$test)[c("X2", "df", "p.value")], univariate = unclass(found$uni)[c("X2", "df", "p.value")],
       cumulative = unclass(found$cumulative)[c("X2", "df", "p.value")], epc = as.data.frame(found$epc)[kept])
}

results_of <- function(case) {
  ml <- lapply(c(large = "large", small = "small"), function(which) fitted(case, which, "ML"))
  mlr <- lapply(c(large = "large", small = "small"), function(which) fitted(case, which, "MLR"))
  list(
    models = as.list(case$models), cluster = case$cluster,
    logl = lapply(ml, function(fit) as.numeric(logLik(fit))),
    hypothesis = case$hypothesis, nonlinear = case$nonlinear, add = case$add,
    lrt = difference(ml$small, ml$large, "default"),
    lrt_2001 = difference(mlr$small, mlr$large, "satorra.bentler.2001"),
    wald = wald(ml$large, case$hypothesis), wald_nonlinear = wald(ml$large, case$nonlinear),
    wald_robust = wald(mlr$large, case$hypothesis),
    score_release = score(ml$small), score_add = score(ml$large, add = case$add)
  )
}

out <- list(
  versions = list(lavaan = as.character(packageVersion("lavaan")), R = as.character(getRversion())),
  cases = lapply(cases, results_of)
)
writeLines(jsonlite::toJSON(out, digits = NA, auto_unbox = TRUE, null = "null", na = "null", dataframe = "rows",
                            pretty = 1), target)
