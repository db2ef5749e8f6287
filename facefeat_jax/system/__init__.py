"""What every room stands on: errors, files, streams, processes, devices; nothing of pictures or models."""
