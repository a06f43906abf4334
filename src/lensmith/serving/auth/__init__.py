"""Who calls, what they may do, how much of it, and what was done with the power to change things."""
