"""What the calibration that ships with the package was built from."""
