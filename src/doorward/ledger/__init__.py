"""What gateways on one machine share: counters, budgets, concurrency slots and things that work once.

One process keeps them (the owner, role `ledger`); every other one asks it through a client. The sum of
what was handed out never exceeds a limit, and what was answered is on disk.
"""
