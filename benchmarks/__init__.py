"""What llmtrap's speed and memory are measured with: `python -m benchmarks`, and a maker of real-size input."""
