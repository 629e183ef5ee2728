"""Who teaches: image networks, and networks of wearable sensors."""
