"""The mathematics of counted shares: exact intervals and how many samples a claim needs. Imports `math` only,
so that planning can ask without loading numpy. Intervals over blocks of time are in `intervals`.
"""

from __future__ import annotations

import math
from functools import lru_cache

CONFIDENCE = 0.95
"""Of every interval, two-sided."""
TAIL = (1 - CONFIDENCE) / 2


def minimum_samples(share: float) -> int:
    """The smallest n of which n good ones show that more than `share` (0 to 1) of all are good.

    `p95 < L` needs `minimum_samples(0.95)` = 72, `success > 99%` and `p99 < L` 368, `p99.9 < L` 3,688. For a claim
    that a share is *below* s, ask for 1 - s. Raises ValueError for 1: no number of samples shows "always".
    """
    if not 0 <= share < 1:
        raise ValueError(f"no number of samples shows a share beyond {share:.0%}; ask for less than 100%")
    if share == 0:
        return 1
    # rounded: 1 - 0.98 is not 0.02 to the last bit, and must not ask for one sample more
    return math.floor(round(math.log(TAIL) / math.log(share), 9)) + 1


def clopper_pearson(good: float, n: float) -> tuple[float, float]:
    """Exact two-sided 95% interval of a share. `good` and `n` may be effective counts, so they need not be whole."""
    if n <= 0:
        return 0.0, 1.0
    low = 0.0 if good <= 0 else beta_quantile(TAIL, good, n - good + 1)
    high = 1.0 if good >= n else beta_quantile(1 - TAIL, good + 1, n - good)
    return low, high


@lru_cache(maxsize=64)
def student_t(df: int) -> float:
    """The 97.5% quantile of Student's t with `df` degrees of freedom; 1.96 for many."""
    if df < 1:
        return math.inf
    # P(|T| > t) = I_x(df/2, 1/2) with x = df / (df + t²)
    x = beta_quantile(2 * TAIL, df / 2, 0.5)
    return math.sqrt(df * (1 - x) / x) if x > 0 else math.inf


def beta_quantile(p: float, a: float, b: float) -> float:
    """The x at which the regularised incomplete beta function I_x(a, b) is `p`, by bisection."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        if beta_cdf(middle, a, b) < p:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def beta_cdf(x: float, a: float, b: float) -> float:
    """The regularised incomplete beta function I_x(a, b)."""
    if x <= 0:
        return 0.0
    if x >= 1:
        return 1.0
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x))
    if x < (a + 1) / (a + b + 2):
        return front * _fraction(x, a, b) / a
    return 1 - front * _fraction(1 - x, b, a) / b


def _fraction(x: float, a: float, b: float) -> float:
    """The continued fraction of I_x(a, b), evaluated forwards with both convergents kept away from zero."""
    tiny = 1e-300
    c, d = 1.0, 1 - (a + b) * x / (a + 1)
    d = 1 / (d if abs(d) > tiny else tiny)
    value = d
    for m in range(1, 20_000):
        for term in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 + term * d
            d = 1 / (d if abs(d) > tiny else tiny)
            c = 1 + term / c
            c = c if abs(c) > tiny else tiny
            value *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    return value
