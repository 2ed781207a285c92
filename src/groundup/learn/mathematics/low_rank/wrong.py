"""The commonest wrong answers to 1.5, each with the hint that names it."""

import numpy as np

REPLACES = {
    "length_of_u_counts": "project",
    "divided_by_length_once": "project",
    "onto_the_other": "project",
    "number_alone": "project",
    "length_of_the_shadow": "project",
    "sign_lost": "project",
    "without_singular_values": "low_rank",
    "singular_values_twice": "low_rank",
    "last_terms": "low_rank",
    "columns_of_vt": "low_rank",
    "rows_of_u": "low_rank",
    "next_value_alone": "error",
    "without_root": "error",
    "values_added": "error",
    "what_is_kept": "error",
    "what_is_left": "project",
    "divided_by_v": "project",
    "all_of_vt": "low_rank",
    "averaged": "error",
}


def length_of_u_counts(v: np.ndarray, u: np.ndarray) -> np.ndarray:
    """This works only for a u of length 1: divide by u · u, so that a longer u gives the same
    point."""
    return u * (u @ v)


def divided_by_length_once(v: np.ndarray, u: np.ndarray) -> np.ndarray:
    """The length of u is in the formula twice, in u · v and in u; you divided by it once. Divide by
    |u|², which is u · u."""
    return u * (u @ v) / np.sqrt(u @ u)


def onto_the_other(v: np.ndarray, u: np.ndarray) -> np.ndarray:
    """This projects u onto v. The result must lie on the line through u."""
    return v * (u @ v) / (v @ v)


def number_alone(v: np.ndarray, u: np.ndarray) -> np.ndarray:
    """This is the number (u · v) / (u · u), the factor of u; the point is this factor times u."""
    return np.asarray((u @ v) / (u @ u))


def sign_lost(v: np.ndarray, u: np.ndarray) -> np.ndarray:
    """The point lies on the wrong side of the origin: u · v is negative if the two are more than a
    right angle apart, and its sign counts. Do not use abs or a length."""
    return u * abs(u @ v) / (u @ u)


def without_singular_values(a: np.ndarray, r: int) -> tuple[np.ndarray, np.ndarray]:
    """The singular values are missing: u vᵀ gives the direction of each term, s its size."""
    u, _, vt = np.linalg.svd(a, full_matrices=False)
    return u[:, :r], vt[:r]


def singular_values_twice(a: np.ndarray, r: int) -> tuple[np.ndarray, np.ndarray]:
    """The product has the squares of the singular values: both thin matrices got them, or one got
    them twice. Multiply s into one of the two, once."""
    u, s, vt = np.linalg.svd(a, full_matrices=False)
    return u[:, :r] * s[:r], s[:r, None] * vt[:r]


def last_terms(a: np.ndarray, r: int) -> tuple[np.ndarray, np.ndarray]:
    """The last r terms were kept, the smallest. Singular values come largest first: keep [:r]."""
    u, s, vt = np.linalg.svd(a, full_matrices=False)
    return u[:, -r:] * s[-r:], vt[-r:]


def columns_of_vt(a: np.ndarray, r: int) -> tuple[np.ndarray, np.ndarray]:
    """The first columns of vt were taken. The v's are its rows (the t means transposed): vt[:r]."""
    u, s, vt = np.linalg.svd(a, full_matrices=False)
    return u[:, :r] * s[:r], vt[:, :r].T


def next_value_alone(a: np.ndarray, r: int) -> float:
    """That is the first dropped singular value alone, the error in the largest stretch (spectral
    norm). Over all entries, the squares of *all* dropped ones count."""
    s = np.linalg.svd(a, compute_uv=False)
    return float(s[r]) if r < len(s) else 0.0


def without_root(a: np.ndarray, r: int) -> float:
    """The root is missing: this is the sum of squares."""
    s = np.linalg.svd(a, compute_uv=False)
    return float((s[r:] ** 2).sum())


def values_added(a: np.ndarray, r: int) -> float:
    """The dropped singular values were added directly. Terms at right angles add up in squares, as
    in Pythagoras' theorem."""
    return float(np.linalg.svd(a, compute_uv=False)[r:].sum())


def what_is_kept(a: np.ndarray, r: int) -> float:
    """This is the size of the kept part, s[:r]; the error comes from the dropped part, s[r:]."""
    s = np.linalg.svd(a, compute_uv=False)
    return float(np.sqrt((s[:r] ** 2).sum()))


def length_of_the_shadow(v: np.ndarray, u: np.ndarray) -> np.ndarray:
    """(u · v) / |u| is the length of the projection, one number. Return the point, a vector."""
    return np.asarray((u @ v) / np.sqrt(u @ u))


def rows_of_u(a: np.ndarray, r: int) -> tuple[np.ndarray, np.ndarray]:
    """The first rows of u were taken. The u's are its columns: u[:, :r]."""
    u, s, vt = np.linalg.svd(a, full_matrices=False)
    return u[:r] * s, vt[:r]


def what_is_left(v: np.ndarray, u: np.ndarray) -> np.ndarray:
    """This is the rest of v, at a right angle to u. Return the point on the line, which you
    subtracted."""
    return v - u * (u @ v) / (u @ u)


def divided_by_v(v: np.ndarray, u: np.ndarray) -> np.ndarray:
    """You divided by v · v. The formula contains u twice: divide by u · u."""
    return u * (u @ v) / (v @ v)


def all_of_vt(a: np.ndarray, r: int) -> tuple[np.ndarray, np.ndarray]:
    """vt is still complete and does not fit the r columns of left. Keep its first r rows:
    vt[:r]."""
    u, s, vt = np.linalg.svd(a, full_matrices=False)
    return u[:, :r] * s[:r], vt


def averaged(a: np.ndarray, r: int) -> float:
    """This takes the mean of the squares. Use the root of their sum."""
    s = np.linalg.svd(a, compute_uv=False)
    return float(np.sqrt((s[r:] ** 2).sum() / a.size))
