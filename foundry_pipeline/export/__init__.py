"""From adapter to files that other programs load: merge, GGUF, quantization."""
