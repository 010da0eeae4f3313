"""From a dataset to an adapter: the plan (pure arithmetic), the tokens, the checkpoints, the script."""
