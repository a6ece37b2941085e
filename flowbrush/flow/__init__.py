"""Flow matching as functions of tensors: path, times, denoiser, loss, guidance, solvers."""
