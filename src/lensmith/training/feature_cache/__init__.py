"""Feature cache: a frozen trunk's outputs, computed once for each image and view and reused in every epoch."""
