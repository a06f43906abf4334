"""The service: predictions of a bundle over HTTP. It never imports torch."""
