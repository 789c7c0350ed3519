"""What is known (the Policy Information Point, PIP): people, devices, assets, as immutable snapshots."""
