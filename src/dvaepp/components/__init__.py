"""What a recipe chooses by name: classes that carry their name, their settings and their limits."""
