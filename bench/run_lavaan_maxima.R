# Whether lavaan finds a maximum: Rscript run_lavaan_maxima.R FOLDER COUNT, for model.lav and 0.csv, 1.csv, ... there.
suppressPackageStartupMessages(library(lavaan))
given <- commandArgs(TRUE)
text <- paste(readLines(file.path(given[1], "model.lav")), collapse = "\n")
for (k in seq_len(as.integer(given[2]))) {
  data <- read.csv(file.path(given[1], paste0(k - 1, ".csv")))
  fit <- tryCatch(suppressWarnings(sem(text, data, cluster = "cluster")), error = function(e) NULL)
  good <- !is.null(fit) && lavInspect(fit, "converged")
  llf <- tryCatch(suppressWarnings(as.numeric(logLik(fit))), error = function(e) NA)
  cat(good, ",", format(llf, digits = 12), "\n", sep = "")
}
