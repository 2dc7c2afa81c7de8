# Times lme4 on a random-intercept regression: Rscript run_lme4.R model.lav data.csv warm.lav warm.csv result.txt
# The right-hand sides of the model's levels become the fixed effects of one formula. The time is that of lmer(), by maximum
# likelihood, and of its summary; starting R and reading the data are excluded, and a small fit beforehand takes the cost of
# first calls out.
suppressPackageStartupMessages(library(lme4))
paths <- commandArgs(trailingOnly = TRUE)

mixed_formula <- function(path) {
  sides <- strsplit(grep("~", readLines(path), value = TRUE), "~")
  outcome <- trimws(sides[[1]][1])
  as.formula(sprintf("%s ~ %s + (1 | cluster)", outcome, paste(sapply(sides, `[`, 2), collapse = "+")))
}

whole_fit <- function(formula, data) {
  fit <- lmer(formula, data, REML = FALSE)
  invisible(capture.output(print(summary(fit))))
  fit
}

warm <- whole_fit(mixed_formula(paths[3]), read.csv(paths[4]))
formula <- mixed_formula(paths[1])
data <- read.csv(paths[2])
start <- proc.time()[["elapsed"]]
fit <- whole_fit(formula, data)
seconds <- proc.time()[["elapsed"]] - start

messages <- unlist(fit@optinfo$conv$lme4$messages)
result <- c(
  version = as.character(packageVersion("lme4")), r = R.version.string,
  seconds = sprintf("%.17g", seconds), converged = fit@optinfo$conv$opt == 0,
  logl = sprintf("%.17g", as.numeric(logLik(fit))), note = paste(messages, collapse = " | ")
)
writeLines(paste(names(result), result, sep = "\t"), paths[5])
