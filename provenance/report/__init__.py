"""Reports: the same values for people (terminal) and for programs (JSON)."""
