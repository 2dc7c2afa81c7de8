# Fits of several groups by lavaan on the package's demonstration data, for tests/test_groups.py.
#
#   PYTHONPATH=python python -c "import msem; msem.load_demo().to_csv('/tmp/demo.csv', index=False)"
#   Rscript tests/lavaan_groups.R /tmp/demo.csv > tests/lavaan_groups.json
#
# Estimates and standard errors are those of the rows that lavaan estimates, in its order.

suppressMessages(library(lavaan))
data <- read.csv(commandArgs(trailingOnly = TRUE)[1])
data$third <- data$cluster %% 3
data$half <- ifelse((data$cluster %/% 2) %% 2 == 1, "south", "north")
# lavaan has groups in order of appearance unless their order is given
groups <- list(third = c("0", "1", "2"), half = c("north", "south"))

cfa_text <- "f =~ y1 + y2 + y3\ng =~ y4 + y5 + y6"
sem_text <- "f =~ y1 + y2 + y3\nf ~ x1 + x2\ny4 ~ f + x1\ny5 ~ x1\ny4 ~~ y5\ny5 ~~ y1"
growth_text <- "i =~ 1*y1 + 1*y2 + 1*y3\ns =~ 0*y1 + 1*y2 + 2*y3"
c_text <- "f =~ y1 + c(a, b, b)*y2 + c(0.5, NA, 0.7)*y3 + start(c(0.5, 0.6, 0.7))*y4\ny1 ~ c(NA, 0, 0)*1"
label_text <- "f =~ y1 + a*y2 + y3\ny1 ~~ e*y1\ny2 ~~ c(e, e, h)*y2"
scalar <- c("loadings", "intercepts")
both <- "level: 1\n  fw =~ y1 + l2*y2 + l3*y3\n  fw ~ x1\nlevel: 2\n  fb =~ y1 + k2*y2 + k3*y3\n  fb ~ w1\n  y1 ~ i1*1\n  y2 ~ i2*1\n  y3 ~ i3*1\n"
two_text <- paste0("group: north\n", both, "group: south\n", both, "  fb ~ NA*1\n")

cases <- list(
    configural = list("cfa", cfa_text, group = "third"),
    metric = list("cfa", cfa_text, group = "third", group.equal = "loadings"),
    scalar = list("cfa", cfa_text, group = "third", group.equal = scalar),
    strict = list("cfa", cfa_text, group = "third", group.equal = c(scalar, "residuals")),
    structural = list("cfa", cfa_text, group = "third", group.equal = c(scalar, "means", "lv.variances", "lv.covariances")),
    unit_variances = list("cfa", cfa_text, group = "third", group.equal = scalar, std.lv = TRUE),
    partial = list("cfa", cfa_text, group = "third", group.equal = scalar, group.partial = c("f=~y3", "y3~1", "y5~1")),
    text_and_half = list("cfa", cfa_text, group = "half", group.equal = scalar),
    paths = list("sem", sem_text, group = "third"),
    regressions = list("sem", sem_text, group = "third", group.equal = "regressions"),
    residuals = list("sem", sem_text, group = "third", group.equal = c("loadings", "residuals", "residual.covariances")),
    intercepts = list("sem", sem_text, group = "half", group.equal = c(scalar, "regressions")),
    random_x = list("sem", sem_text, group = "half", group.equal = scalar, fixed.x = FALSE),
    growth = list("growth", growth_text, group = "third", group.equal = "means"),
    one_for_each = list("cfa", c_text, group = "third"),
    one_label = list("cfa", label_text, group = "third"),
    no_means = list("cfa", cfa_text, group = "third", group.equal = "loadings", meanstructure = FALSE),
    two_levels = list("sem", two_text, group = "half", cluster = "cluster")
)

run <- function(case) {
    for (tolerance in 10^(-14:-9)) { # nlminb calls it false convergence if the tolerance is beyond rounding error
        control <- list(rel.tol = tolerance, eval.max = 5000, iter.max = 5000)
        settings <- list(case[[2]], data, control = control, group.label = groups[[case$group]])
        fit <- suppressWarnings(do.call(case[[1]], c(settings, case[-(1:2)])))
        if (lavInspect(fit, "converged")) break
    }
    rows <- parTable(fit)
    rows <- rows[rows$free > 0, ]
    measures <- fitMeasures(fit)
    number <- function(x) formatC(x, digits = 12, format = "g")
    list(
        fun = case[[1]], text = case[[2]],
        options = lapply(case[-(1:2)], function(x) if (is.character(x) && length(x) > 1) as.list(x) else x),
        logl = number(measures["logl"]), chisq = number(measures["chisq"]), df = measures[["df"]],
        cfi = number(measures["cfi"]), rmsea = number(measures["rmsea"]), srmr = number(measures["srmr"]),
        group_chisq = number(fit@test[[1]]$stat.group),
        est = number(rows$est), se = number(rows$se)
    )
}

json <- function(x) {
    if (is.list(x) && !is.null(names(x))) {
        paste0("{", paste0('"', names(x), '": ', vapply(x, json, ""), collapse = ", "), "}")
    } else if (is.list(x)) {
        paste0("[", paste(vapply(x, json, ""), collapse = ", "), "]")
    } else if (is.logical(x)) {
        tolower(as.character(x))
    } else if (is.character(x) && length(x) == 1 && is.na(suppressWarnings(as.numeric(x)))) {
        paste0('"', gsub("\n", "\\\\n", x), '"')
    } else if (length(x) == 1) {
        trimws(as.character(x))
    } else {
        paste0("[", paste(trimws(x), collapse = ", "), "]")
    }
}

cat("{\n", paste0('"', names(cases), '": ', vapply(cases, function(case) json(run(case)), ""), collapse = ",\n"), "\n}\n", sep = "")
