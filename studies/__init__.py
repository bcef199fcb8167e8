"""Studies whose results the documentation quotes; each is re-run by one command."""
