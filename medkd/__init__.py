"""medkd distils a large teacher LLM into a small student that turns a doctor-patient conversation into a structured record."""

__version__ = "0.1.0"
