"""Data curation: what the features of a frozen backbone tell about labels, copies, and what to label next."""
