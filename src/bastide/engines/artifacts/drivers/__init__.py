"""Ways to keep bytes: files of this machine, and an S3-compatible store."""
