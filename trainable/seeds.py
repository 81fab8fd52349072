"""Seeds by purpose: a draw's seed is a function of what the draw is for."""

import hashlib


def derive(seed: int, *purpose: int | str) -> int:
    """A 63-bit seed that is a pure function of the seed and its purpose, equal on every machine."""
    text = "\x1f".join([str(seed), *(f"{type(part).__name__}:{part}" for part in purpose)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1
