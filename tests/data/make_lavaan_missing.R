# Fit models to the demonstration data with holes with lavaan 0.6-14 and store the results.
#
#   folder=$(mktemp -d) && python tests/data/make_missing.py $folder && Rscript tests/data/make_lavaan_missing.R $folder
#
# (from the root of the checkout; needs msem, lavaan and jsonlite.) Estimates are polished by Newton steps on lavaan's
# gradient. `default` is what a user gets. Its saturated two-level model, an optimisation over Cholesky factors, stops
# below the maximum, in `two_level_dropped` even below the fitted model, so the saturated model is fitted and polished as
# a model too. For two-level data with holes its information of first order takes the data as complete and is NA:
# `default_mlr` is the error that its robust fits end with. Its expected information takes them as complete too (standard
# errors up to 13% too small) and is not stored. `ml.x` with fixed covariates ends with an error for two levels.
suppressMessages(library(lavaan))
folder <- commandArgs(trailingOnly = TRUE)[1]
target <- "tests/data/lavaan_missing.json"
read <- function(name) read.csv(file.path(folder, paste0(name, ".csv")))

two_level <- "
level: 1
  fw =~ y1 + y2 + y3
  fw ~ x1 + x2 + x3
level: 2
  fb =~ y1 + y2 + y3
  fb ~ w1 + w2
"
factors <- "
  f1 =~ y1 + y2 + y3
  f2 =~ y4 + y5 + y6
"
regression <- paste0(factors, "  f1 + f2 ~ x1 + x2\n")
within <- c("y1", "y2", "y3", "x1", "x2", "x3")
between <- c("y1", "y2", "y3", "w1", "w2")
case <- function(data, model, missing = "ml", fixed_x = TRUE, cluster = NULL) {
  list(data = data, model = model, cluster = cluster, args = list(missing = missing, fixed.x = fixed_x))
}
cases <- list(
  two_level = case("y", two_level, cluster = "cluster"),
  two_level_random_x = case("all", two_level, fixed_x = FALSE, cluster = "cluster"),
  two_level_dropped = case("all", two_level, cluster = "cluster"),
  one_level = case("rows", factors),
  one_level_random_x = case("rows", regression, fixed_x = FALSE),
  one_level_dropped = case("rows", regression),
  one_level_kept = case("rows", regression, missing = "ml.x")
)

fitted <- function(case, model, ...) {
  data <- read(case$data)
  if (!is.null(case$complete)) data <- data[complete.cases(data[case$complete]), ]
  given <- list(model = model, data = data, cluster = case$cluster)
  suppressWarnings(do.call("sem", c(given, modifyList(case$args, list(...)))))
}
alone <- function(case, model, ...) {
  fitted(case, model, se = "none", test = "none", h1 = FALSE, baseline = FALSE, ...)
}
independent <- function(fit) {
  if (lavInspect(fit, "nlevels") > 1) lavInspect(fit, "nclusters") else lavInspect(fit, "nobs")
}
information <- function(fit, kind) independent(fit) * lavTech(fit, paste0("information.", kind))

# The gradient is that of -logl / N.
newton_step <- function(fit) {
  drop(solve(information(fit, "observed"), lavInspect(fit, "nobs") * drop(lavTech(fit, "gradient"))))
}
polished <- function(case, model, ...) {
  fit <- alone(case, model, ...)
  for (i in 1:4) {
    if (max(abs(lavTech(fit, "gradient"))) < 1e-12) break
    table <- parTable(fit)
    table$ustart[table$free > 0] <- table$est[table$free > 0] - newton_step(fit)
    table$start <- table$est <- table$se <- NULL
    fit <- alone(case, table, control = list(rel.tol = 1e-9), ...)
  }
  fit
}

# All covariances of the variables of one level, started at those of the fitted model.
covariances <- function(cov, names) {
  pairs <- which(upper.tri(diag(length(names)), diag = TRUE), arr.ind = TRUE)
  paste0(names[pairs[, 1]], " ~~ start(", signif(cov[names, names][pairs], 8), ")*", names[pairs[, 2]], collapse = "\n")
}
saturated_two_level <- function(case, fit) {
  implied <- lavInspect(fit, "implied")
  text <- paste("level: 1", covariances(implied[[1]]$cov, within), "level: 2",
                covariances(implied[[2]]$cov, between), sep = "\n")
  # rows with a missing covariate stay dropped: the covariates are fixed for the data, not for the model
  if (case$args$missing == "ml" && case$args$fixed.x) {
    case <- modifyList(case, list(complete = c("x1", "x2", "x3", "w1", "w2")))
  }
  polished(case, text, fixed.x = FALSE)
}
plain <- function(x) list(names = rownames(x), values = unname(unclass(x)))
moments <- function(x) list(cov = plain(x$cov), mean = as.list(unclass(x$mean)[seq_along(x$mean)]))

default <- function(case, estimator) {
  tryCatch({
    fit <- fitted(case, case$model, estimator = estimator)
    measures <- fitMeasures(fit)
    kept <- c("logl", "unrestricted.logl", "chisq", "chisq.scaled", "baseline.chisq")
    c(list(converged = lavInspect(fit, "converged")), as.list(measures[intersect(kept, names(measures))]))
  }, error = function(e) list(error = conditionMessage(e)))
}

results_of <- function(name) {
  case <- cases[[name]]
  fit <- polished(case, case$model)
  table <- as.data.frame(parTable(fit))
  if (is.null(table$level)) table$level <- 1L
  errors <- function(v) replace(numeric(nrow(table)), table$free > 0, sqrt(diag(v))[table$free])
  observed <- solve(information(fit, "observed"))
  table$se <- errors(observed)
  stored <- case[c("data", "model", "cluster", "args")]
  stored <- c(stored, list(
    npar = lavInspect(fit, "npar"), nobs = lavInspect(fit, "nobs"), logl = as.numeric(logLik(fit)),
    gradient_max = max(abs(lavTech(fit, "gradient"))), default = default(case, "ML"), default_mlr = default(case, "MLR")
  ))
  if (is.null(case$cluster)) {
    table$se_expected <- errors(solve(information(fit, "expected")))
    table$se_robust <- errors(observed %*% information(fit, "first.order") %*% observed)
    tight <- list(em.h1.tol = 1e-12, em.h1.iter.max = 100000)
    robust <- do.call(fitted, c(list(case, start_at(fit), estimator = "MLR", control = list(rel.tol = 1e-9)), tight))
    stored$robust <- as.list(fitMeasures(robust, c("unrestricted.logl", "chisq", "df", "chisq.scaled",
                                                   "chisq.scaling.factor", "baseline.chisq", "baseline.chisq.scaled")))
    scaling <- lavInspect(robust, "test")[["yuan.bentler.mplus"]]
    stored$robust[c("scaling_h0", "scaling_h1")] <- scaling[c("scaling.factor.h0", "scaling.factor.h1")]
    stored$h1 <- moments(lavInspect(robust, "h1"))
  } else {
    stored$nclusters <- lavInspect(fit, "nclusters")
    saturated <- saturated_two_level(case, fit)
    stored$h1_gradient_max <- max(abs(lavTech(saturated, "gradient")))
    stored$h1_joint_logl <- as.numeric(logLik(saturated))
    stored$h1 <- lapply(lavInspect(saturated, "implied"), moments)
  }
  stored$parameters <- table[, intersect(c("lhs", "op", "rhs", "level", "free", "est", "se", "se_expected", "se_robust"),
                                         names(table))]
  cat(sprintf("%-20s logl %.6f (default %.6f)  gradient %.1e\n", name, stored$logl, stored$default$logl,
              stored$gradient_max))
  stored
}
start_at <- function(fit) {
  table <- parTable(fit)
  table$ustart[table$free > 0] <- table$est[table$free > 0]
  table$start <- table$est <- table$se <- NULL
  table
}

out <- list(
  versions = list(lavaan = as.character(packageVersion("lavaan")), R = as.character(getRversion())),
  cases = lapply(setNames(names(cases), names(cases)), results_of)
)
writeLines(jsonlite::toJSON(out, digits = 12, auto_unbox = TRUE, null = "null", na = "null", dataframe = "rows"), target)
