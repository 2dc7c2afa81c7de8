# Robust fits of the demonstration data with lavaan: standard errors, scaled tests and fit measures.
#
#   Rscript tests/data/make_robust.R        (from the root of the checkout; needs lavaan and jsonlite)
#
# Within-only covariates are centred, without which lavaan's cluster scores are not those of its likelihood.
suppressMessages(library(lavaan))
demo <- read.csv(gzfile("python/msem/data/demo.csv.gz"))
for (x in c("x1", "x2", "x3")) demo[[x]] <- demo[[x]] - mean(demo[[x]])

two_level <- "
level: 1
  fw =~ y1 + y2 + y3
  fw ~ x1 + x2 + x3
level: 2
  fb =~ y1 + y2 + y3
  fb ~ w1 + w2
"
one_level <- "
  f1 =~ y1 + y2 + y3
  f2 =~ y4 + y5 + y6
  f1 + f2 ~ x1 + x2
"
results <- function(...) {
  fit <- sem(...)
  if (!lavInspect(fit, "converged")) stop("not converged")
  p <- as.data.frame(parTable(fit))
  p <- p[p$free > 0, c("lhs", "op", "rhs", "block", "est", "se")]
  tests <- lapply(lavInspect(fit, "test"), function(t) {
    t[intersect(names(t), c("stat", "df", "pvalue", "scaling.factor", "scaling.factor.h0", "scaling.factor.h1"))]
  })
  list(parameters = p, tests = tests, fit_measures = as.list(fitMeasures(fit)))
}
one <- function(...) results(one_level, ...)
two <- function(...) results(two_level, ..., cluster = "cluster")
cases <- list(
  rows = one(demo, estimator = "MLR"),
  rows_without_means = one(demo, estimator = "MLR", meanstructure = FALSE),
  rows_full = one(demo, meanstructure = TRUE, se = "robust.huber.white", test = "yuan.bentler"),
  rows_expected = one(demo, meanstructure = TRUE, estimator = "MLR", information = "expected"),
  rows_first_order = one(demo, meanstructure = TRUE, estimator = "MLF"),
  clusters = one(demo, estimator = "MLR", cluster = "cluster"),
  two_level = two(demo, estimator = "MLR"),
  two_level_full = two(demo, se = "robust", test = "yuan.bentler"),
  two_level_expected = two(demo, estimator = "MLR", information = "expected"),
  two_level_first_order = two(demo, information = "first.order")
)
cases$version <- as.character(packageVersion("lavaan"))
writeLines(jsonlite::toJSON(cases, digits = NA, auto_unbox = TRUE, pretty = TRUE, na = "null"), "tests/data/lavaan_robust.json")
