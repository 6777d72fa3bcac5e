"""Brute-force twins of what clarp computes fast: they follow the textbook's formula, output by output, and share no code with it."""
