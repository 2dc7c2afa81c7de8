"""Populations for simulations: the model of the demo data, and a small one."""

DEMO = """
level: 1
  fw =~ y1 + y2 + y3
  fw ~ x1 + x2 + x3
level: 2
  fb =~ y1 + y2 + y3
  fb ~ w1 + w2
"""
DEMO_POPULATION = """
level: 1
  fw =~ 1*y1 + 0.8*y2 + 0.7*y3
  fw ~ 0.5*x1 + 0.4*x2 + 0.2*x3
  fw ~~ 0.55*fw
  y1 ~~ 1*y1
  y2 ~~ 1*y2
  y3 ~~ 1*y3
level: 2
  fb =~ 1*y1 + 0.7*y2 + 0.6*y3
  fb ~ 0.3*w1 + 0.2*w2
  fb ~~ 0.9*fb
  y1 ~~ 0.3*y1
  y2 ~~ 0.2*y2
  y3 ~~ 0.2*y3
  y1 ~ 1.5*1
  w1 ~~ 2*w1 + 0.5*w2
"""
REGRESSION = "y ~ 0.3*x\ny ~~ 1*y\ny ~ 2*1"
