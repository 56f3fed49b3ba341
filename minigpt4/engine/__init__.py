"""What answers: sampling parameters, completions, decoding."""
