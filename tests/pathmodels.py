"""Random models for path diagrams: up to 12 indicators and 4 factors per level, with a structural part."""

from __future__ import annotations

import numpy as np


def random_model(seed, *, levels=2):
    """Text of a model, which is read but not fitted: it need not be identified."""
    rng = np.random.default_rng(seed)
    ys = [f"y{k}" for k in range(1, int(rng.integers(3, 13)) + 1)]
    if levels == 1:
        return "\n".join(level_text(rng, ys, "f", "x"))
    both = [f"b{k}" for k in range(rng.integers(0, 3))]  # at both levels, no indicators
    within = level_text(rng, ys, "f", "x", both)
    between = level_text(rng, ys, "g", "w", both)
    return "\n".join(["level: 1", *within, "level: 2", *between])


def level_text(rng, ys, letter, covariate, both=()):
    """Formulas of one level."""
    count = int(rng.integers(1, min(4, len(ys)) + 1))
    cuts = np.sort(rng.choice(np.arange(1, len(ys)), count - 1, replace=False)) if count > 1 else []
    factors = [f"{letter}{k}" for k in range(count)]
    parts = dict(zip(factors, np.split(np.array(ys), cuts), strict=True))
    if rng.random() < 0.3:
        parts[factors[-1]] = np.unique([*parts[factors[-1]], *rng.choice(ys, 2)])  # cross loadings
    if rng.random() < 0.15:
        parts["all"] = np.array(ys)  # a bifactor model
    lines = [f"{factor} =~ {' + '.join(own)}" for factor, own in parts.items()]
    if count > 2 and rng.random() < 0.25:
        lines.append(f"higher =~ {' + '.join(factors)}")
        factors = [factors[0], "higher"]
    things = [*factors, *both]
    xs = [f"{covariate}{k}" for k in range(rng.integers(0, 4))]
    for k, thing in enumerate(things):
        causes = [other for other in [*things[:k], *xs] if rng.random() < 0.45]
        if causes and not {thing, *causes} >= {factors[0], "higher"}:
            lines.append(f"{thing} ~ {' + '.join(causes)}")
    lines += [f"{name} ~~ {name}" for name in both]
    if rng.random() < 0.3:
        a, b = rng.choice(len(ys), 2, replace=False)
        lines.append(f"{ys[a]} ~~ {ys[b]}")
    if rng.random() < 0.3:
        lines.append(f"outcome_{covariate} ~ {factors[-1]}")
    if xs and rng.random() < 0.25:
        lines.append(f"{ys[0]} ~ {xs[0]}")
    return lines


LARGE = """
level: 1
  f1 =~ y1 + y2 + y3
  f2 =~ y4 + y5 + y6
  f3 =~ y7 + y8 + y9
  f4 =~ y10 + y11 + y12
  f2 ~ f1 + x1
  f3 ~ f1 + f2
  f4 ~ f1 + f2 + f3 + x1 + x2
  y1 ~~ y12
level: 2
  g1 =~ y1 + y2 + y3 + y10
  g2 =~ y4 + y5 + y6 + y11
  g3 =~ y7 + y8 + y9 + y12
  g4 =~ y1 + y5 + y9 + y12
  g3 ~ g1 + g2 + w1
  g1 ~ w1 + w2
  g2 ~ w1 + w2
  z ~ g3 + w2
"""
