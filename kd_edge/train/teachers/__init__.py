"""Teachers: image networks, networks of wearable sensors, and encoders in ONNX files."""
