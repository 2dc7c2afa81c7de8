# Residuals of single-level models of the demonstration data by lavaan, with their standard errors and summaries.
#
#   Rscript tests/data/make_residuals.R        (from the root of the checkout; needs lavaan and jsonlite)
suppressMessages(library(lavaan))

demo <- read.csv(gzfile("python/msem/data/demo.csv.gz"))
models <- list(
  covariates = list(text = "f =~ y1 + y2 + y3\nf ~ x1 + x2\ny3 ~ w1", fixed.x = TRUE, meanstructure = FALSE),
  random_x = list(text = "f =~ y1 + y2 + y3\nf ~ x1 + x2\ny3 ~ w1", fixed.x = FALSE, meanstructure = TRUE),
  equal_means = list(
    text = "f =~ y1 + y2 + y3 + y4\ny1 ~ m*1\ny2 ~ m*1\ny3 ~ 0*1\ny4 ~ 1",
    fixed.x = TRUE, meanstructure = TRUE
  )
)
lower <- function(m) as.vector(m[lower.tri(m, diag = TRUE)])
residuals_of <- function(model) {
  fit <- sem(model$text, demo,
    fixed.x = model$fixed.x, meanstructure = model$meanstructure,
    control = list(rel.tol = 1e-13)
  )
  kinds <- c("raw", "cor.bollen", "cor.bentler")
  found <- lapply(kinds, function(type) {
    r <- lavResiduals(fit, type = type, se = TRUE, add.type = FALSE, add.class = FALSE)
    list(
      cov = lower(r$cov), cov_se = lower(r$cov.se), mean = r$mean, mean_se = r$mean.se,
      names = rownames(r$cov), summary = as.list(as.data.frame(r$summary)), rows = rownames(r$summary)
    )
  })
  c(model, list(kinds = setNames(found, kinds)))
}
results <- list(lavaan = as.character(packageVersion("lavaan")), models = lapply(models, residuals_of))
jsonlite::write_json(results, "tests/data/lavaan_residuals.json", digits = NA, auto_unbox = TRUE, pretty = TRUE)
