"""Train a backbone on photographs of one's own; ``README.md`` says how."""
