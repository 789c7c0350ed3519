"""Other engines on the same rules, each in the benchmark's own environment (`requirements/bench.txt`)."""
