"""How usual a matrix is: among its peers in the model, and among published models."""
