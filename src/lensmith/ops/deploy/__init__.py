"""Files for the machines that serve: proxy, units, images, and what watches them."""
