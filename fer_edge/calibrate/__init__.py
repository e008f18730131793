"""Quantization calibration: a hashed sample of the training split, post-training quantization, the accuracy gate."""
