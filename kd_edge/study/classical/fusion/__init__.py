"""Classical methods on depth and wearable sensors: CRC, CRC-2, CNN + LSTM."""
