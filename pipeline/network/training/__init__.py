"""Train a ResNet end to end."""
