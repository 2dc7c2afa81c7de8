# Fit models to the demonstration data with lavaan and store the results.
#
#   Rscript tests/data/make_lavaan.R        (from the root of the checkout; needs lavaan and jsonlite)
#
# lavaan's estimates are polished by Newton steps on its own gradient, so that they are the maximum of the
# likelihood rather than the default stopping point. The EM algorithm of its saturated two-level model stops
# short however small the tolerance (the within means of variables at both levels should be 0 and are not), so
# the saturated model is also fitted and polished as a model: `unrestricted_logl`, `chisq`, `baseline_chisq` and
# `h1` are from that fit, `fit_measures` are lavaan's own.
suppressMessages(library(lavaan))

source_file <- "python/msem/data/demo.csv.gz"
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

# All covariances of the variables of one level.
covariances <- function(names) {
  pairs <- which(upper.tri(diag(length(names)), diag = TRUE), arr.ind = TRUE)
  paste(names[pairs[, 1]], "~~", names[pairs[, 2]], collapse = "\n")
}
saturated_text <- function(within, between) {
  paste("level: 1", covariances(within), "level: 2", covariances(between), sep = "\n")
}
y <- paste0("y", 1:6)
saturated_demo <- saturated_text(c(y[1:3], "x1", "x2", "x3"), c(y[1:3], "w1", "w2"))
saturated_y <- saturated_text(y, y)

cases <- list(
  two_level = list(fun = "sem", model = two_level, saturated = saturated_demo, args = list()),
  two_level_std_lv = list(fun = "sem", model = two_level, saturated = saturated_demo, args = list(std.lv = TRUE)),
  two_level_random_x = list(fun = "sem", model = two_level, saturated = saturated_demo,
                            args = list(fixed.x = FALSE)),
  two_factors = list(fun = "cfa", model = two_factors, saturated = saturated_y, args = list()),
  two_factors_std_lv = list(fun = "cfa", model = two_factors, saturated = saturated_y,
                            args = list(std.lv = TRUE)),
  single_level = list(fun = "cfa", model = single_level, args = list()),
  single_level_means = list(fun = "cfa", model = single_level, args = list(meanstructure = TRUE, std.lv = TRUE))
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

polished <- function(fun, model, two_level, args = list()) {
  fixed <- list(data = demo, information = "observed", em.h1.tol = 1e-12, em.h1.iter.max = 100000)
  if (two_level) fixed$cluster <- "cluster"
  fit <- do.call(fun, c(list(model = model), fixed, args))
  for (i in 1:4) {
    table <- parTable(fit)
    table$ustart[table$free > 0] <- table$est[table$free > 0] - newton_step(fit)
    table$start <- table$est <- table$se <- NULL
    fit <- do.call(fun, c(list(model = table, control = list(rel.tol = 1e-9)), fixed, args))
  }
  stopifnot(lavInspect(fit, "converged"), max(abs(lavTech(fit, "gradient"))) < 1e-12)
  fit
}

# The joint saturated log-likelihood, less that of the covariates where the model is conditional on them.
saturated_of <- function(case, fit) {
  if (is.null(case$saturated)) {
    return(list(logl = fitMeasures(fit)[["unrestricted.logl"]], h1 = lavInspect(fit, "h1")))
  }
  saturated <- polished("sem", case$saturated, TRUE, list(fixed.x = FALSE))
  fixed_x <- length(lavNames(fit, "ov.x")) > 0 && !identical(case$args$fixed.x, FALSE)
  covariates <- if (fixed_x) logl_of_covariates(case) else 0
  list(logl = as.numeric(logLik(saturated)) - covariates, h1 = lavInspect(saturated, "implied"))
}

logl_of_covariates <- function(case) {
  args <- case$args[names(case$args) != "fixed.x"]
  joint <- polished(case$fun, case$model, TRUE, c(args, list(fixed.x = FALSE)))
  conditional <- polished(case$fun, case$model, TRUE, c(args, list(fixed.x = TRUE)))
  as.numeric(logLik(joint)) - as.numeric(logLik(conditional))
}

matrices <- function(x) {
  if (is.list(x)) return(lapply(x, matrices))
  if (is.matrix(x)) return(list(names = colnames(x), values = unclass(x)))
  list(names = names(x), values = unclass(as.numeric(x)))
}

results_of <- function(case) {
  two_level <- !is.null(case$saturated)
  fit <- polished(case$fun, case$model, two_level, case$args)
  saturated <- saturated_of(case, fit)
  table <- as.data.frame(parTable(fit))
  if (is.null(table$level)) table$level <- 1L
  table$se_expected <- standard_errors(fit, table$free, "expected")
  table$se_observed <- standard_errors(fit, table$free, "observed")
  stopifnot(all.equal(table$se, table$se_observed, tolerance = 1e-6))
  measures <- unclass(fitMeasures(fit))
  gained <- saturated$logl - measures[["unrestricted.logl"]]
  stored <- list(
    fun = case$fun, model = case$model, cluster = if (two_level) "cluster",
    args = if (length(case$args)) case$args else setNames(list(), character()),
    npar = lavInspect(fit, "npar"), nobs = lavInspect(fit, "nobs"), df = measures[["df"]],
    gradient_max = max(abs(lavTech(fit, "gradient"))),
    logl = as.numeric(logLik(fit)), unrestricted_logl = saturated$logl,
    chisq = measures[["chisq"]] + 2 * gained,
    baseline_chisq = measures[["baseline.chisq"]] + 2 * gained, baseline_df = measures[["baseline.df"]],
    fit_measures = as.list(measures),
    parameters = table[, c("lhs", "op", "rhs", "level", "free", "est", "se_observed", "se_expected")],
    h1 = matrices(saturated$h1), implied = matrices(lavInspect(fit, "implied"))
  )
  if (two_level) {
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
  cat(sprintf("%-20s logl %.6f  h1 %.6f (EM %.6f)  gradient %.1e\n", name, one$logl, one$unrestricted_logl,
              one$fit_measures$unrestricted.logl, one$gradient_max))
}
writeLines(jsonlite::toJSON(out, digits = NA, auto_unbox = TRUE, null = "null", na = "null", dataframe = "rows",
                            pretty = 1), target)
