# Times OpenMx on the case "demo": Rscript run_openmx.R model.lav data.csv warm.lav warm.csv result.txt
# The model of cases.py written out as relational RAM; model.lav is not read. No chi-square: OpenMx has no
# saturated model for relational data. Covariates are part of the model here, so their own log-likelihood
# is taken off afterwards, to be comparable with programs that condition on them.
suppressPackageStartupMessages(library(OpenMx))
paths <- commandArgs(trailingOnly = TRUE)
mxOption(key = "Number of Threads", value = parallel::detectCores())

y <- paste0("y", 1:3)
x <- paste0("x", 1:3)
w <- c("w1", "w2")
by <- paste0("b", y)

build <- function(data) {
  clusters <- data[!duplicated(data$cluster), c("cluster", w)]
  clusters$cluster <- as.integer(clusters$cluster)
  data$cluster <- as.integer(data$cluster)
  between <- mxModel("between",
    type = "RAM", manifestVars = w, latentVars = c("fb", by),
    mxData(clusters, "raw", primaryKey = "cluster"),
    mxPath("fb", by, free = c(FALSE, TRUE, TRUE), values = c(1, 0.8, 0.8)),
    mxPath(w, "fb", values = 0.1),
    mxPath(c(by, "fb"), arrows = 2, values = c(0.1, 0.1, 0.1, 0.8)),
    mxPath(w, arrows = 2, connect = "unique.pairs", values = c(1, 0, 1)),
    mxPath("one", w, values = 0)
  )
  mxModel("within",
    type = "RAM", manifestVars = c(y, x), latentVars = "fw", between,
    mxData(data, "raw"),
    mxPath("fw", y, free = c(FALSE, TRUE, TRUE), values = c(1, 0.8, 0.8)),
    mxPath(x, "fw", values = 0.3),
    mxPath(c(y, "fw"), arrows = 2, values = c(1, 1, 1, 0.5)),
    mxPath(x, arrows = 2, connect = "unique.pairs", values = c(1, 0, 0, 1, 0, 1)),
    mxPath("one", c(y, x), values = 0),
    mxPath(paste0("between.", by), y, free = FALSE, values = 1, joinKey = "cluster")
  )
}

# ML log-likelihood of normal covariates at their own moments
covariate_logl <- function(data) {
  n <- nrow(data)
  -n / 2 * (ncol(data) * (log(2 * pi) + 1) + determinant(cov(data) * (n - 1) / n)$modulus[1])
}

whole_fit <- function(data) {
  fit <- mxRun(build(data), silent = TRUE)
  capture.output(print(summary(fit)))
  fit
}

data <- read.csv(paths[2])
warm <- whole_fit(read.csv(paths[4]))
start <- proc.time()[["elapsed"]]
fit <- whole_fit(data)
seconds <- proc.time()[["elapsed"]] - start

clusters <- data[!duplicated(data$cluster), ]
logl <- -fit$output$fit / 2 - covariate_logl(data[x]) - covariate_logl(clusters[w])
result <- c(
  version = as.character(packageVersion("OpenMx")), r = R.version.string,
  seconds = sprintf("%.17g", seconds), converged = fit$output$status$code %in% 0:1,
  logl = sprintf("%.17g", logl)
)
writeLines(paste(names(result), result, sep = "\t"), paths[5])
