"""How good a system is: benchmarks, their measures, and what a system must beat."""
