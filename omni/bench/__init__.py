"""Measurements of the assistant on the machine at hand."""
