# Times lavaan on one case: Rscript run_lavaan.R model.lav data.csv warm.lav warm.csv result.txt estimator missing
# The time is that of sem() and of the full summary, at lavaan's default settings of the estimator; starting R and reading
# the data are excluded, and a small fit beforehand takes the cost of first calls out.
suppressPackageStartupMessages(library(lavaan))
paths <- commandArgs(trailingOnly = TRUE)

whole_fit <- function(model, data) {
  cluster <- if ("cluster" %in% names(data)) "cluster"
  fit <- sem(model, data = data, cluster = cluster, estimator = paths[6], missing = paths[7])
  invisible(capture.output(print(summary(fit, fit.measures = TRUE))))
  fit
}

read <- function(i) list(model = paste(readLines(paths[i]), collapse = "\n"), data = read.csv(paths[i + 1]))
warm <- read(3)
invisible(try(suppressWarnings(whole_fit(warm$model, warm$data)), silent = TRUE))

case <- read(1)
messages <- character()
start <- proc.time()[["elapsed"]]
fit <- withCallingHandlers(tryCatch(whole_fit(case$model, case$data), error = identity), warning = function(w) {
  messages <<- c(messages, gsub("\\s+", " ", conditionMessage(w)))
  invokeRestart("muffleWarning")
})
seconds <- proc.time()[["elapsed"]] - start
if (inherits(fit, "error")) {
  message(sprintf("after %.1f s: %s", seconds, gsub("\\s+", " ", conditionMessage(fit))))
  quit(status = 1)
}

number <- function(x) sprintf("%.17g", x)
result <- c(
  version = as.character(packageVersion("lavaan")), r = R.version.string,
  seconds = number(seconds), converged = lavInspect(fit, "converged"),
  logl = number(fitMeasures(fit, "logl")), chisq = number(fitMeasures(fit, if (paths[6] == "MLR") "chisq.scaled" else "chisq")),
  note = paste(messages, collapse = " | ")
)
writeLines(paste(names(result), result, sep = "\t"), paths[5])
