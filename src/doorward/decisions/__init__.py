"""Decides (PDP, policy decision point): one question, one snapshot, one bundle, no I/O."""
