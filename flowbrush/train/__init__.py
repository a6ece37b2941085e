"""Training: the loop and what it calls once in a while."""
