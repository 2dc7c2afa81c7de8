# Factor scores of single-level models of the demonstration data by lavaan.
#
#   Rscript tests/data/make_lavaan_scores.R        (from the root of the checkout; needs lavaan and jsonlite)
#
# The tolerance is closer than the optimiser can reach, and it says so.
suppressMessages(library(lavaan))

demo <- head(read.csv(gzfile("python/msem/data/demo.csv.gz")), 300)
models <- list(
  factors = "
  f1 =~ y1 + y2 + y3
  f2 =~ y4 + y5 + y6
",
  covariates = "
  f1 =~ y1 + y2 + y3
  f2 =~ y4 + y5 + y6
  f2 ~ f1 + x3
  f1 ~ x1 + x2
  y1 ~~ y4
"
)
result <- list(lavaan = as.character(packageVersion("lavaan")), rows = 300, models = models, scores = list())
for (name in names(models)) {
  fit <- sem(models[[name]], demo, meanstructure = TRUE, control = list(rel.tol = 1e-11))
  for (method in c("regression", "Bartlett")) {
    scores <- lavPredict(fit, method = method, se = "standard")
    result$scores[[name]][[method]] <- list(
      names = colnames(scores), first = unclass(scores)[1:8, ], se = as.vector(attr(scores, "se")[[1]])
    )
  }
}
target <- "tests/data/lavaan_scores.json"
writeLines(jsonlite::toJSON(result, digits = 12, auto_unbox = TRUE, pretty = TRUE), target)
