"""Public checkpoints: what their files hold, and the way to and from our parameters."""
