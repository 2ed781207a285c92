"""The error function erf(x) = 2/√π ∫₀ˣ exp(-t²) dt, which NumPy lacks, to about one unit in 1e16.

Quotients of polynomials on five stretches of |x|, in which the error is below one unit in the last
place. Source of the stretches and coefficients: `s_erf.c` of Sun's FDLIBM 5.3 (1993), after Cody
(1969), "Rational Chebyshev approximations for the error function".
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.polynomial.polynomial import polyval

Array = np.ndarray[Any, np.dtype[Any]]

# erf(x) = x + x P(x²)/Q(x²) for |x| < 0.84375
P = [1.28379167095512558561e-01, -3.25042107247001499370e-01, -2.84817495755985104766e-02,
     -5.77027029648944159157e-03, -2.37630166566501626084e-05]  # fmt: skip
Q = [1.0, 3.97917223959155352819e-01, 6.50222499887672944485e-02, 5.08130628187576562776e-03,
     1.32494738004321644526e-04, -3.96022827877536812320e-06]  # fmt: skip
# erf(x) = c + A(s)/B(s) with s = |x| - 1 for |x| < 1.25; c is erf(1) cut to 24 bits
C = 8.45062911510467529297e-01
A = [-2.36211856075265944077e-03, 4.14856118683748331666e-01, -3.72207876035701323847e-01,
     3.18346619901161753674e-01, -1.10894694282396677476e-01, 3.54783043256182359371e-02,
     -2.16637559486879084300e-03]  # fmt: skip
B = [1.0, 1.06420880400844228286e-01, 5.40397917702171048937e-01, 7.18286544141962662868e-02,
     1.26171219808761642112e-01, 1.36370839120290507362e-02, 1.1984499846799107417e-02]  # fmt: skip
# erf(x) = 1 - exp(-x² - 0.5625 + R(s)/S(s)) / |x| with s = 1/x², for |x| < 1/0.35
R = [-9.86494403484714822705e-03, -6.93858572707181764372e-01, -1.05586262253232909814e01,
     -6.23753324503260060396e01, -1.62396669462573470355e02, -1.84605092906711035994e02,
     -8.12874355063065934246e01, -9.81432934416914548592e00]  # fmt: skip
S = [1.0, 1.96512716674392571292e01, 1.37657754143519042600e02, 4.34565877475229228821e02,
     6.45387271733267880336e02, 4.29008140027567833386e02, 1.08635005541779435134e02,
     6.57024977031928170135e00, -6.04244152148580987438e-02]  # fmt: skip
# and further out, where from |x| = 6 on the result is 1 in float64
R_FAR = [-9.86494292470009928597e-03, -7.99283237680523006574e-01, -1.77579549177547519889e01,
         -1.60636384855821916062e02, -6.37566443368389627722e02, -1.02509513161107724954e03,
         -4.83519191608651397019e02]  # fmt: skip
S_FAR = [1.0, 3.03380607434824582924e01, 3.25792512996573918826e02, 1.53672958608443695994e03,
         3.19985821950859553908e03, 2.55305040643316442583e03, 4.74528541206955367215e02,
         -2.24409524465858183362e01]  # fmt: skip


def erf(x: Array) -> Array:
    """erf of every element, in its dtype (computed in float64)."""
    values = np.asarray(x)
    size = np.abs(values, dtype=np.float64)
    stretches = np.searchsorted([0.84375, 1.25, 1 / 0.35, 6.0], size, side="right")
    out = np.ones_like(size)
    for number, formula in enumerate((_near, _about_one, _tail, _far_tail)):
        inside = stretches == number
        if inside.any():
            out[inside] = formula(size[inside])
    out[np.isnan(size)] = np.nan
    dtype = values.dtype if values.dtype.kind == "f" else np.float64
    return np.asarray(np.copysign(out, values), dtype=dtype)


def _near(x: Array) -> Array:
    return np.asarray(x + x * _quotient(x * x, P, Q))


def _about_one(x: Array) -> Array:
    return np.asarray(C + _quotient(x - 1, A, B))


def _tail(x: Array) -> Array:
    return _complement(x, _quotient(1 / (x * x), R, S))


def _far_tail(x: Array) -> Array:
    return _complement(x, _quotient(1 / (x * x), R_FAR, S_FAR))


def _complement(x: Array, exponent: Array) -> Array:
    return np.asarray(1 - np.exp(-x * x - 0.5625 + exponent) / x)


def _quotient(x: Array, top: list[float], bottom: list[float]) -> Array:
    return np.asarray(polyval(x, top) / polyval(x, bottom))
