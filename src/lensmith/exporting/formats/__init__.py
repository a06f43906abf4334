"""A trained network for other runtimes, beside the bundle: some of these files hold pickle, and a bundle never does."""
