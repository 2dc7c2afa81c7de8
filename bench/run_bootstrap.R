# Refits one case with lavaan to given bootstrap samples: Rscript run_bootstrap.R model.lav data.csv weights.csv result.csv
# Each row of weights.csv says how often each cluster, in order of its id, is in a sample. Refits compute neither standard
# errors nor tests; the time is that of building the sample and of the refit.
suppressPackageStartupMessages(library(lavaan))
paths <- commandArgs(trailingOnly = TRUE)
model <- paste(readLines(paths[1]), collapse = "\n")
data <- read.csv(paths[2])
weights <- as.matrix(read.csv(paths[3]))
clusters <- split(data, data$cluster)
whole <- suppressWarnings(sem(model, data = data, cluster = "cluster"))

refit <- function(weight) {
  drawn <- rep(seq_along(clusters), weight)
  parts <- Map(function(k, id) { part <- clusters[[k]]; part$cluster <- id; part }, drawn, seq_along(drawn))
  suppressWarnings(sem(model, data = do.call(rbind, parts), cluster = "cluster", se = "none", test = "none"))
}
invisible(refit(weights[1, ])) # first calls are slower

result <- t(apply(weights, 1, function(weight) {
  seconds <- system.time(fit <- refit(weight))[["elapsed"]]
  c(seconds, coef(fit))
}))
colnames(result) <- c("seconds", names(coef(whole)))
write.csv(cbind(version = as.character(packageVersion("lavaan")), as.data.frame(result)), paths[4], row.names = FALSE)
