"""Models of the demonstration data that several tests fit."""

COVARIATE = """
level: 1
  fw =~ y1 + y2 + y3
  fw ~ x1
level: 2
  fb =~ y1 + y2 + y3
  fb ~ w1
"""
COVARIATES = """
level: 1
  fw =~ y1 + y2 + y3
  fw ~ x1 + x2
level: 2
  fb =~ y1 + y2 + y3
  fb ~ w1
"""
DEMO = """
level: 1
  fw =~ y1 + y2 + y3
  fw ~ x1 + x2 + x3
level: 2
  fb =~ y1 + y2 + y3
  fb ~ w1 + w2
"""
