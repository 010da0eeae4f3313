"""The commands `foundry` and `dagster`. This is what both begin with.

What they import, and Dagster's events, are objects by the hundred thousand and next to no garbage: at Python's own threshold
of 700 new objects, looking for it took a fifth of their processor time.
"""

import gc

gc.set_threshold(100_000, 10, 10)
