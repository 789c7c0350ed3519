"""The command line: one module per noun, each thin over the control plane or a room."""
