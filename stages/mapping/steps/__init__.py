"""`[[mapping.steps]]`: changes decoded messages before they are mapped, each step in its order."""
