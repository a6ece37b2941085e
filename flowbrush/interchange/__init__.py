"""Published weights in and out. Conventions other than ours are converted here and nowhere else."""
