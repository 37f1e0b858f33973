"""Training that loses nothing when it is killed, and the files that it leaves."""
