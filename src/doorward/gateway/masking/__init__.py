"""Blank named columns and fields of text that streams by, byte for byte: same length, whole records only."""
