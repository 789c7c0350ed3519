"""What happened: append-only, hash-chained segments, written before anything is let through.

`writer` makes records durable, `reader` finds them again, `verify` proves nobody touched them.
"""
