"""The network: ResNet-50, augmentation, and the training loop."""
