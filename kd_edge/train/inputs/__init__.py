"""From the frame cache to network input."""
