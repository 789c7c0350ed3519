"""Who asks: API keys, access tokens (OIDC/JWT), device certificates (mTLS) -> a verified caller."""
