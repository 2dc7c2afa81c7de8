# Times OpenMx on a two-level case: Rscript run_openmx.R model.lav data.csv warm.lav warm.csv result.txt
# The model text is turned into relational RAM: measurement (=~) and regression (~) lines, variances, and covariances of
# factors of a level. No chi-square: OpenMx has no saturated model for relational data. Covariates are part of the model here,
# so their own log-likelihood is taken off afterwards, to be comparable with programs that condition on them.
suppressPackageStartupMessages(library(OpenMx))
paths <- commandArgs(trailingOnly = TRUE)
mxOption(key = "Number of Threads", value = parallel::detectCores())

# One level of the model text: factors with their indicators, outcomes with their predictors, and who is what.
describe <- function(lines) {
  sides <- function(operator) {
    parts <- strsplit(lines[grepl(operator, lines) & (operator == "=~" | !grepl("=~", lines))], operator)
    names(parts) <- vapply(parts, function(part) trimws(part[1]), "")
    lapply(parts, function(part) trimws(strsplit(part[2], "+", fixed = TRUE)[[1]]))
  }
  loadings <- sides("=~")
  regressions <- sides("~")
  factors <- names(loadings)
  outcomes <- setdiff(unique(c(unlist(loadings), names(regressions))), factors)
  covariates <- setdiff(unique(unlist(regressions)), c(factors, outcomes))
  list(loadings = loadings, regressions = regressions, factors = factors, outcomes = outcomes, covariates = covariates)
}

read_model <- function(path) {
  lines <- trimws(readLines(path))
  level <- cumsum(grepl("^level:", lines))
  lapply(1:2, function(k) describe(lines[level == k & grepl("~", lines)]))
}

# Paths of one level. `named` gives the variables of the model for those of the text; `variance` their starting values.
level_paths <- function(level, named, variance) {
  first_free <- function(n) c(FALSE, rep(TRUE, n - 1))
  measured <- lapply(level$factors, function(f) {
    indicators <- named(level$loadings[[f]])
    mxPath(f, indicators, free = first_free(length(indicators)), values = c(1, rep(0.8, length(indicators) - 1)))
  })
  regressed <- lapply(names(level$regressions), function(outcome) {
    mxPath(named(level$regressions[[outcome]]), named(outcome), values = 0.1)
  })
  residual <- mxPath(named(level$outcomes), arrows = 2, values = variance[level$outcomes])
  of_factors <- lapply(level$factors, function(f) mxPath(f, arrows = 2, values = variance[level$loadings[[f]][1]]))
  together <- if (length(level$factors) > 1) {
    list(mxPath(level$factors, arrows = 2, connect = "unique.bivariate", values = 0.05 * min(variance)))
  }
  c(measured, regressed, list(residual), of_factors, together)
}

# Covariates with all their moments free.
covariate_paths <- function(data, names) {
  if (!length(names)) {
    return(list())
  }
  moments <- cov(data[names])
  list(
    mxPath(names, arrows = 2, connect = "unique.pairs", values = moments[lower.tri(moments, diag = TRUE)]),
    mxPath("one", names, values = colMeans(data[names]))
  )
}

build <- function(levels, data) {
  within <- levels[[1]]
  between <- levels[[2]]
  both <- intersect(between$outcomes, within$outcomes)
  data$cluster <- as.integer(data$cluster)
  clusters <- data[!duplicated(data$cluster), c("cluster", between$covariates), drop = FALSE]
  observed <- setdiff(between$outcomes, both)
  stopifnot(!length(observed), !length(intersect(between$covariates, within$covariates)))
  variance <- vapply(data[both], var, 0, na.rm = TRUE)
  part <- function(names) ifelse(names %in% both, paste0("b", names), names)
  upper <- do.call(mxModel, c(
    list("between", type = "RAM", latentVars = c(between$factors, part(both)), mxData(clusters, "raw", primaryKey = "cluster")),
    if (length(between$covariates)) list(manifestVars = between$covariates),
    level_paths(between, part, 0.15 * variance), covariate_paths(clusters, between$covariates)
  ))
  do.call(mxModel, c(
    list("within", type = "RAM", manifestVars = c(within$outcomes, within$covariates), upper, mxData(data, "raw")),
    if (length(within$factors)) list(latentVars = within$factors),
    level_paths(within, identity, 0.4 * variance), covariate_paths(data, within$covariates),
    list(
      mxPath("one", within$outcomes, values = colMeans(data[within$outcomes], na.rm = TRUE)),
      mxPath(paste0("between.", part(both)), both, free = FALSE, values = 1, joinKey = "cluster")
    )
  ))
}

# ML log-likelihood of normal covariates at their own moments
covariate_logl <- function(data) {
  n <- nrow(data)
  if (!ncol(data)) 0 else -n / 2 * (ncol(data) * (log(2 * pi) + 1) + determinant(cov(data) * (n - 1) / n)$modulus[1])
}

whole_fit <- function(levels, data) {
  fit <- mxRun(build(levels, data), silent = TRUE)
  capture.output(print(summary(fit)))
  fit
}

levels <- read_model(paths[1])
data <- read.csv(paths[2])
warm <- whole_fit(read_model(paths[3]), read.csv(paths[4]))
start <- proc.time()[["elapsed"]]
fit <- whole_fit(levels, data)
seconds <- proc.time()[["elapsed"]] - start

clusters <- data[!duplicated(data$cluster), ]
logl <- -fit$output$fit / 2 - covariate_logl(data[levels[[1]]$covariates]) - covariate_logl(clusters[levels[[2]]$covariates])
result <- c(
  version = as.character(packageVersion("OpenMx")), r = R.version.string,
  seconds = sprintf("%.17g", seconds), converged = fit$output$status$code %in% 0:1,
  logl = sprintf("%.17g", logl)
)
writeLines(paste(names(result), result, sep = "\t"), paths[5])
