"""The ways to do it: bubblewrap for sandboxes, gocryptfs for volumes."""
