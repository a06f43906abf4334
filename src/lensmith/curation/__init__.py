"""Data curation: the label doctor and what to label next, by features of a frozen backbone; the review page."""
