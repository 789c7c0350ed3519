"""One file per protocol: what a request names, how a refusal looks, how obligations are kept."""
