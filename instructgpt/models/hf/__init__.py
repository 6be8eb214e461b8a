"""Public checkpoints: how to read them, and how to convert them to our parameters."""
