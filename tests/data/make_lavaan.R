# Fit models to the demonstration data with lavaan and store the results.
#
#   Rscript tests/data/make_lavaan.R        (from the root of the checkout; needs lavaan and jsonlite)
#
# lavaan's estimates are polished by Newton steps on its own gradient, and the EM iterations of its saturated
# model run until rounding stops them, so that the numbers are maxima of the likelihood rather than the default
# stopping points.
suppressMessages(library(lavaan))

source_file <- "python/msem/demo.csv.gz"
demo <- read.csv(gzfile(source_file))
target <- "tests/data/lavaan_demo.json"

two_level <- "
level: 1
  fw =~ y1 + y2 + y3
  fw ~ x1 + x2 + x3
level: 2
  fb =~ y1 + y2 + y3
  fb ~ w1 + w2
"
two_factors <- "
level: 1
  fw1 =~ y1 + y2 + y3
  fw2 =~ y4 + y5 + y6
level: 2
  fb1 =~ y1 + y2 + y3
  fb2 =~ y4 + y5 + y6
"
single_level <- "
  f1 =~ y1 + y2 + y3
  f2 =~ y4 + y5 + y6
"

cases <- list(
  two_level = list(fun = "sem", model = two_level, cluster = "cluster", args = list()),
  two_level_std_lv = list(fun = "sem", model = two_level, cluster = "cluster", args = list(std.lv = TRUE)),
  two_level_random_x = list(fun = "sem", model = two_level, cluster = "cluster", args = list(fixed.x = FALSE)),
  two_factors = list(fun = "cfa", model = two_factors, cluster = "cluster", args = list()),
  two_factors_std_lv = list(fun = "cfa", model = two_factors, cluster = "cluster", args = list(std.lv = TRUE)),
  single_level = list(fun = "cfa", model = single_level, cluster = NULL, args = list()),
  single_level_means = list(fun = "cfa", model = single_level, cluster = NULL,
                            args = list(meanstructure = TRUE, std.lv = TRUE))
)

# lavaan's information is per independent unit: per cluster in a two-level model.
information <- function(fit, kind) {
  independent <- if (lavInspect(fit, "nlevels") > 1) lavInspect(fit, "nclusters") else lavInspect(fit, "nobs")
  independent * lavTech(fit, paste0("information.", kind))
}

# Its gradient is that of -logl / N.
newton_step <- function(fit) {
  drop(solve(information(fit, "observed"), lavInspect(fit, "nobs") * drop(lavTech(fit, "gradient"))))
}

standard_errors <- function(fit, free, kind) {
  errors <- numeric(length(free))
  errors[free > 0] <- sqrt(diag(solve(information(fit, kind))))[free]
  errors
}

fit_case <- function(case) {
  fixed <- list(data = demo, information = "observed", em.h1.tol = 1e-14, em.h1.iter.max = 100000)
  if (!is.null(case$cluster)) fixed$cluster <- case$cluster
  fit <- do.call(case$fun, c(list(model = case$model), fixed, case$args))
  for (i in 1:4) {
    table <- parTable(fit)
    table$ustart[table$free > 0] <- table$est[table$free > 0] - newton_step(fit)
    table$start <- table$est <- table$se <- NULL
    fit <- do.call(case$fun, c(list(model = table, control = list(rel.tol = 1e-9)), fixed, case$args))
  }
  stopifnot(lavInspect(fit, "converged"), max(abs(lavTech(fit, "gradient"))) < 1e-12)
  fit
}

matrices <- function(x) {
  if (is.list(x)) return(lapply(x, matrices))
  if (is.matrix(x)) return(list(names = colnames(x), values = unclass(x)))
  list(names = names(x), values = unclass(as.numeric(x)))
}

results_of <- function(case) {
  fit <- fit_case(case)
  table <- as.data.frame(parTable(fit))
  if (is.null(table$level)) table$level <- 1L
  table$se_expected <- standard_errors(fit, table$free, "expected")
  table$se_observed <- standard_errors(fit, table$free, "observed")
  stopifnot(all.equal(table$se, table$se_observed, tolerance = 1e-6))
  measures <- unclass(fitMeasures(fit))
  stored <- list(
    fun = case$fun, model = case$model, cluster = case$cluster,
    args = if (length(case$args)) case$args else setNames(list(), character()),
    npar = lavInspect(fit, "npar"), nobs = lavInspect(fit, "nobs"),
    gradient_max = max(abs(lavTech(fit, "gradient"))),
    logl = as.numeric(logLik(fit)), unrestricted_logl = measures[["unrestricted.logl"]],
    fit_measures = as.list(measures),
    baseline = as.list(measures[c("baseline.chisq", "baseline.df")]),
    parameters = table[, c("lhs", "op", "rhs", "level", "free", "est", "se_observed", "se_expected")],
    h1 = matrices(lavInspect(fit, "h1")), implied = matrices(lavInspect(fit, "implied"))
  )
  if (!is.null(case$cluster)) {
    stored$nclusters <- lavInspect(fit, "nclusters")
    stored$icc <- as.list(lavInspect(fit, "icc"))
  }
  stored
}

out <- list(
  versions = list(lavaan = as.character(packageVersion("lavaan")), R = as.character(getRversion())),
  data_md5 = unname(tools::md5sum(source_file)),
  cases = lapply(cases, results_of)
)
for (name in names(out$cases)) {
  one <- out$cases[[name]]
  cat(sprintf("%-20s logl %.6f  h1 %.6f  gradient %.1e\n", name, one$logl, one$unrestricted_logl, one$gradient_max))
}
writeLines(jsonlite::toJSON(out, digits = NA, auto_unbox = TRUE, null = "null", na = "null", dataframe = "rows",
                            pretty = 1), target)
