"""`python -m llmtrap`: the command line."""

from llmtrap.cli import main

if __name__ == "__main__":
    main()
