"""A run on this machine: Beam's local runner here, the model in processes of its own."""
