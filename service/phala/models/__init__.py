"""Answers of the API as immutable pydantic models with snake case attributes."""
