"""Tier 1."""
def function(slice_, env, schema): return None
