"""HTTP/1.1 on asyncio protocols and llhttp: connections in, connections out, and nothing about policies."""
