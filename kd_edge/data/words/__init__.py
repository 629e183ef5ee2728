"""Embedding vectors of class names, from word vectors or a sentence encoder."""
