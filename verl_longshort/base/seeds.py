"""Seeds derived from a seed and a name, so that each piece of work has its own and none depends on the others."""

import hashlib


def derived_bytes(seed: object, name: str) -> bytes:
    """32 bytes that `seed` and `name` decide."""
    return hashlib.sha256(f"{seed}/{name}".encode()).digest()


def derived_seed(seed: object, name: str, *, bits: int = 56) -> int:
    """A seed of `bits` bits (at most 64) that `seed` and `name` decide; some endpoints take 31 at most."""
    return int.from_bytes(derived_bytes(seed, name)[:8], "big") >> (64 - bits)
