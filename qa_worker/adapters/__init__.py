"""One kind of I/O each. Adapters implement the ports and don't know each other; only bootstrap builds them."""
