"""Audits inside other tools: callbacks for training loops."""
