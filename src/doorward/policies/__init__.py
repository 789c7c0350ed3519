"""Administers policies (PAP, policy administration point): the directory of files, packs, tests."""
