"""What remote answers cost: prices, budgets, and a ledger that reserves before anything is sent."""
