"""Reports: one self-contained page for each evaluated run, written from artifacts alone."""
