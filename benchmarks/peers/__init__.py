"""The same transcripts graded by other evaluation tools against the same local server: `python -m benchmarks.peers`."""
