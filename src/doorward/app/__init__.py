"""The composition root: the only place that constructs adapters and plugs rooms into each other."""
