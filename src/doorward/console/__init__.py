"""The management API and the web console, both thin over the rooms below."""
