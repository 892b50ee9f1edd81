"""What is done, in which order: one module a use case. Effects go through the ports, decisions through the domain."""
