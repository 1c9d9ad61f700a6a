"""The torch side: who used which parameter, what arrived there, and what the optimizer made of it."""
