"""Results of suites in the formats that other programs read."""
