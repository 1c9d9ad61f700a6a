"""Live widgets for notebooks: each is a skin over a small dict of state, with files of its own."""
