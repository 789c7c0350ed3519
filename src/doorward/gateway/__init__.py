"""The policy enforcement point (PEP): in front of the real systems, on every request."""
