"""Run folders, and results side by side."""
