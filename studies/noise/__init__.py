"""What noise gives: the table that comes with the package, and how far it can be trusted."""
