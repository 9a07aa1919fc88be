"""Benchmarks: suites of problems and agents, run, read, tabled, and compared with earlier ones."""
