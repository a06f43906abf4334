"""The model that a registry names: followed, replaced, and a challenger tried beside it."""
