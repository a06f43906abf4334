"""What becomes of answers once they are sent: their true labels heard, and some uploads kept for labelling."""
