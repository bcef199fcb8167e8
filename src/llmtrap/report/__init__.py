"""The document of an audit (`document.py`, the contract) and its faces: JSON, HTML, Markdown and the terminal."""
