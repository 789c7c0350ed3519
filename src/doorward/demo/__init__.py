"""The story on real systems: an open language model, registry and store, closed, then guarded.

Everything it starts is a child of a keeper that ends it when the demo is gone, however it went.
"""
