"""A seeded campaign against the chain: it is broken in every declared way, mended by the command its message names, and
compared with a run that nobody disturbed. See `benchmarks/faults/__main__.py`."""
