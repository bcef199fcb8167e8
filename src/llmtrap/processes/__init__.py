"""Worker processes: started deaf to signals, watched while they work, and ended within seconds whatever they do."""
