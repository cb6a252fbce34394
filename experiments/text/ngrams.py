"""Interpolated n-grams over characters: what a text task has to beat.

Both kinds interpolate every order with the one below it, down to the uniform distribution over the vocabulary, and are
counted on the training characters alone. Nothing is tuned: discounts are the closed forms of the counts of counts.

References:
    Chen & Goodman, An Empirical Study of Smoothing Techniques for Language Modeling, Harvard TR-10-98, 1998
    Witten & Bell, The Zero-Frequency Problem, IEEE Transactions on Information Theory 37, 1991
"""

import numpy as np


def grams(tokens, n, size):
    """The n-grams of a text as whole numbers i64[len - n + 1], the last character in the lowest place."""
    keys = np.zeros(len(tokens) - n + 1, np.int64)
    for i in range(n):
        keys = keys * size + tokens[i : len(tokens) - n + 1 + i]
    return keys


def looked_up(keys, table, values):
    """Values f64[table] of keys in a sorted table; 0 where a key is not in it."""
    place = np.minimum(np.searchsorted(table, keys), len(table) - 1)
    return np.where(table[place] == keys, values[place], 0.0)


def discounts(counts):
    """Modified Kneser-Ney's discounts f64[3] of n-grams seen once, twice, and more often."""
    seen = [max(1.0, float(np.sum(counts == c))) for c in (1, 2, 3, 4)]
    share = seen[0] / (seen[0] + 2 * seen[1])
    found = np.array([c - (c + 1) * share * seen[c] / seen[c - 1] for c in (1, 2, 3)])
    return np.where((found > 0) & (found < [1, 2, 3]), found, 0.5)  # too few counts to say: absolute discounting


def bits_per_character(train, held, size, n, kind):
    """Bits a character of held-out text under an interpolated n-gram model.

    Args:
        train: i64[...], tokens below `size`.
        held: i64[...], tokens; the first n - 1 are context of the others only.
        size: Of the vocabulary, the reserved token for unknown characters included.
        n: Order.
        kind: "kneser_ney" (modified) or "witten_bell".
    """
    targets = len(held) - (n - 1)
    probability = np.full(targets, 1.0 / size)
    for k in range(1, n + 1):
        raw = grams(train, k, size)
        if kind == "kneser_ney" and k < n:
            longer = np.unique(grams(train, k + 1, size))  # each counts once: in how many contexts was it seen?
            raw = longer % size**k
        table, counts = np.unique(raw, return_counts=True)
        contexts, place = np.unique(table // size, return_inverse=True)
        total = np.bincount(place, counts)
        asked = grams(held, k, size)[n - k :]
        if kind == "kneser_ney":
            taken = np.concatenate([[0.0], discounts(counts)])[np.minimum(counts, 3)]
            given = np.bincount(place, taken)
        else:
            taken, given = np.zeros(len(counts)), np.bincount(place).astype(float)
            total = total + given
        kept, mass = looked_up(asked, table, counts - taken), looked_up(asked // size, contexts, given)
        of = looked_up(asked // size, contexts, total)
        known = of > 0
        probability = np.where(known, (kept + mass * probability) / np.where(known, of, 1.0), probability)
    return float(-np.log2(probability).mean())
