"""Is the statistics right: error rates, power, soundness of the certificate and accuracy of α, by simulation."""
