"""What gateways on one machine share: counters, budgets, places, one-time things, sightings of credentials.

One process keeps them (the owner, role `ledger`); every other one asks it through a client. The sum of
what was handed out never exceeds a limit, and what was answered is on disk.
"""
