"""Follow an LDAP directory or Active Directory: people and groups as they are there, seconds later.

`wire` speaks the protocol, `entries` reads what an entry says, `reading` finds out what changed,
`sync` makes a plan of it. Nothing here is asynchronous: each source has a thread of its own (`app.sources`).
"""
