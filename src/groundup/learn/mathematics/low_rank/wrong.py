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
    """This works only for a u of length 1: divide by u · u, so that a longer u gives no other
    point of the same line."""
    return u * (u @ v)


def divided_by_length_once(v: np.ndarray, u: np.ndarray) -> np.ndarray:
    """The length of u stands in the formula twice, in u · v and in u; you divided by it once.
    Divide by |u|², which is u · u."""
    return u * (u @ v) / np.sqrt(u @ u)


def onto_the_other(v: np.ndarray, u: np.ndarray) -> np.ndarray:
    """This projects u onto v. The result has to lie on the line through u."""
    return v * (u @ v) / (v @ v)


def number_alone(v: np.ndarray, u: np.ndarray) -> np.ndarray:
    """This is the number (u · v) / (u · u), how many times u fits; the point is that many u."""
    return np.asarray((u @ v) / (u @ u))


def sign_lost(v: np.ndarray, u: np.ndarray) -> np.ndarray:
    """The point lies on the wrong side of the origin: u · v is negative where the two are more than
    a right angle apart, and its sign counts. No abs and no length belongs there."""
    return u * abs(u @ v) / (u @ u)


def without_singular_values(a: np.ndarray, r: int) -> tuple[np.ndarray, np.ndarray]:
    """The singular values are missing: u vᵀ says in which direction each term goes, s how much of
    it there is."""
    u, _, vt = np.linalg.svd(a, full_matrices=False)
    return u[:, :r], vt[:r]


def singular_values_twice(a: np.ndarray, r: int) -> tuple[np.ndarray, np.ndarray]:
    """The product has the squares of the singular values: both thin matrices got them, or one got
    them twice. Give s to one of the two, once."""
    u, s, vt = np.linalg.svd(a, full_matrices=False)
    return u[:, :r] * s[:r], s[:r, None] * vt[:r]


def last_terms(a: np.ndarray, r: int) -> tuple[np.ndarray, np.ndarray]:
    """The last r terms were kept, the smallest. Singular values come largest first: keep [:r]."""
    u, s, vt = np.linalg.svd(a, full_matrices=False)
    return u[:, -r:] * s[-r:], vt[-r:]


def columns_of_vt(a: np.ndarray, r: int) -> tuple[np.ndarray, np.ndarray]:
    """The first columns of vt were taken. The v's are its rows (the t stands for transposed):
    vt[:r]."""
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
    """The dropped singular values were added as they are. Terms at right angles add up in squares,
    as in Pythagoras' theorem."""
    return float(np.linalg.svd(a, compute_uv=False)[r:].sum())


def what_is_kept(a: np.ndarray, r: int) -> float:
    """This is the size of what is kept, s[:r]; the error is made of what is dropped, s[r:]."""
    s = np.linalg.svd(a, compute_uv=False)
    return float(np.sqrt((s[:r] ** 2).sum()))


def length_of_the_shadow(v: np.ndarray, u: np.ndarray) -> np.ndarray:
    """(u · v) / |u| is how long the shadow of v is, one number. The point lies so far along u: it
    is a vector."""
    return np.asarray((u @ v) / np.sqrt(u @ u))


def rows_of_u(a: np.ndarray, r: int) -> tuple[np.ndarray, np.ndarray]:
    """The first rows of u were taken. The u's are its columns: u[:, :r]."""
    u, s, vt = np.linalg.svd(a, full_matrices=False)
    return u[:r] * s, vt[:r]


def what_is_left(v: np.ndarray, u: np.ndarray) -> np.ndarray:
    """This is what is left of v, at a right angle to u. The point on the line is what you took away
    from it."""
    return v - u * (u @ v) / (u @ u)


def divided_by_v(v: np.ndarray, u: np.ndarray) -> np.ndarray:
    """You divided by v · v. What stands in the formula twice is u: divide by u · u."""
    return u * (u @ v) / (v @ v)


def all_of_vt(a: np.ndarray, r: int) -> tuple[np.ndarray, np.ndarray]:
    """vt is still whole, and does not fit the r columns of left. Keep its first r rows: vt[:r]."""
    u, s, vt = np.linalg.svd(a, full_matrices=False)
    return u[:, :r] * s[:r], vt


def averaged(a: np.ndarray, r: int) -> float:
    """This takes the mean of the squares. Their sum is asked for, and its root."""
    s = np.linalg.svd(a, compute_uv=False)
    return float(np.sqrt((s[r:] ** 2).sum() / a.size))
