"""Recipes, the loop, schedules, checkpoints, several processes."""
