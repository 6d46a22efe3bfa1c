"""Train the network and embed tiles with it."""
