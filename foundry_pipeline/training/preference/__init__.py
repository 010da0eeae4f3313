"""The project's own preference step: packed pairs, a shared prompt, no kept logits. `step.py` ties it together."""
