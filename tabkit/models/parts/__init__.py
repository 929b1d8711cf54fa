"""What models share: wrappers around a model, the training loop, the in-context network. No file here is a model."""
