# Times lme4 on a random slope: Rscript run_lme4_slopes.R data.csv warm.csv result.txt
# The time is that of lmer(), by maximum likelihood, and of its summary; starting R and reading the data are excluded, and a
# small fit beforehand takes the cost of first calls out.
suppressPackageStartupMessages(library(lme4))
paths <- commandArgs(trailingOnly = TRUE)

whole_fit <- function(data) {
  fit <- lmer(y ~ x + (x | cluster), data, REML = FALSE)
  invisible(capture.output(print(summary(fit))))
  fit
}

warm <- whole_fit(read.csv(paths[2]))
data <- read.csv(paths[1])
start <- proc.time()[["elapsed"]]
fit <- whole_fit(data)
seconds <- proc.time()[["elapsed"]] - start
result <- c(
  version = as.character(packageVersion("lme4")), seconds = sprintf("%.17g", seconds),
  logl = sprintf("%.17g", as.numeric(logLik(fit)))
)
writeLines(paste(names(result), result, sep = "\t"), paths[3])
