"""The document of an audit (`document.py`, the contract) and its outputs: JSON, HTML, Markdown and the terminal."""
