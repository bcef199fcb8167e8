"""How many changes of the code the tests notice: mutants of a module, made and run by cosmic-ray on a copy."""
