"""SCIM 2.0 (RFC 7643, 7644): identity providers and device managers bring people, groups and devices.

The protocol is the library's; what may be said, and what it means, is the directory's (`directory.draft`).
"""
