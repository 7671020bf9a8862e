"""From orders in the state to stage processes, and from their outcome files back to facts."""
