"""Fuzzing of every parser of what comes from outside: `make fuzz`, and a short form in tests/security/test_fuzz.py."""
