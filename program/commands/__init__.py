"""The commands, one module each: click alone at the top, and what a command runs in its body."""
