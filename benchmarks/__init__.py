"""What gradflow costs, side by side with a plain training step and with other tools: ``make bench``."""
