"""Where records come from: files, the hub, TensorFlow Datasets and published sets."""
