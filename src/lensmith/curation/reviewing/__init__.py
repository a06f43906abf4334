"""The review page: people look at pictures and decide on their labels; every decision is journalled at once."""
