"""The words all rooms share: frozen structs, errors, ports. No I/O, no third party but msgspec."""
