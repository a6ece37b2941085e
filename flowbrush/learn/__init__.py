"""What the notebooks train, draw and measure with, beside the package itself."""
